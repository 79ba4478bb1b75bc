"""How fast networks learn and predict on the demo's structures, one thread, equal hidden width.

`train_ms` is a whole step (forward, backward, optimiser) by structure, `infer_ms` the forward
pass alone without gradients; graphs are there already. Each model has a process of its own.
"""

from defectkit.bench import in_own_process, shortest_ms
from defectkit.training.config import RunConfig, load_config, with_values
from defectkit.training.pretrained import CONFIGS

TRAIN_BATCH, INFER_BATCH, BATCHES = 16, 64, 4
# Name: the configuration it starts from, and what differs. The hidden width is the hybrid's.
VARIANTS: dict[str, tuple[str, dict]] = {
    "hybrid": ("hybrid", {}),
    "hybrid triplets": (
        "hybrid",
        {"model.settings.angles": "triplets", "graph.angle_cutoff": 4.0},
    ),
    "alignn compact": ("alignn", {}),
    "alignn published layers": (
        "alignn",
        {
            "model.settings": {},
            "graph": {"neighbours": 12, "angle_cutoff": 12.0, "all_pairs": False},
        },
    ),
}


def rows(seed: int) -> list[dict]:
    """A row a model.

    Args:
        seed: of the weights and of the choice of structures.
    """
    hidden = load_config(CONFIGS / "hybrid.yaml").model.settings["hidden"]
    table = []
    for name, (file, changes) in VARIANTS.items():
        config = with_values(load_config(CONFIGS / f"{file}.yaml"), changes)
        config = with_values(config, {"model.settings.hidden": hidden})
        measured = in_own_process(measure, config, seed)
        table.append({"model": name, "hidden": hidden, **measured, "seed": seed})
    return table


def measure(config: RunConfig, seed: int) -> dict[str, float]:
    """Parameters, edges, angles and milliseconds of a new model of this configuration."""
    import torch

    from defectkit.data.splits import make_split
    from defectkit.graphs.dataset import load_graphs
    from defectkit.training.engine import keep_memory
    from defectkit.training.objectives import loss_terms, make_optimiser
    from defectkit.training.prepared import prepare
    from defectkit.training.train import new_model

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    keep_memory()
    dataset = prepare(config).dataset
    chosen = make_split(dataset, "random", seed).train[: INFER_BATCH * BATCHES]
    graphs = load_graphs([dataset[uid] for uid in chosen], dataset.hosts, config.graph)
    model = new_model(config, graphs, dataset.label_source)
    optimiser = make_optimiser(model, config.optimiser)

    def step(graph):
        optimiser.zero_grad()
        terms = loss_terms(model(graph), graph.y_eform, graph.y_spin, config.loss)
        sum(terms.values()).backward()
        optimiser.step()

    def batches(size):
        return [graphs.batch(range(k * size, (k + 1) * size)) for k in range(BATCHES)]

    small, large = batches(TRAIN_BATCH), batches(INFER_BATCH)
    train_ms = shortest_ms(lambda: [step(graph) for graph in small], BATCHES * TRAIN_BATCH)
    model.eval()
    with torch.no_grad():
        infer_ms = shortest_ms(lambda: [model(graph) for graph in large], BATCHES * INFER_BATCH)
    return {
        "n_params": sum(p.numel() for p in model.parameters()),
        "edges": round(sum(g.edge_index.shape[1] for g in large) / len(graphs), 1),
        "angles": round(sum(_angles(g) for g in large) / len(graphs), 1),
        "train_ms": train_ms,
        "infer_ms": infer_ms,
    }


def _angles(graph) -> int:
    return graph.angle_index.shape[1] if "angle_index" in graph else 0
