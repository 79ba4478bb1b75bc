"""What a prediction costs by the number of atoms: graph, local part, global part, and ALIGNN.

Sheets of MoS2 with gold adatoms, one thread, no gradients, new weights (they do not change the
cost). The memory is that of the process so far: sizes grow, and each model has its own process.
"""

from defectkit.bench import in_own_process, peak_mb, shortest_ms
from defectkit.bench.graphs import mos2_with_adatoms
from defectkit.structures.hosts import HOSTS
from defectkit.training.config import load_config
from defectkit.training.pretrained import CONFIGS

SIZES = (28, 75, 200, 500, 1000)


def rows(seed: int, sizes: tuple[int, ...] = SIZES) -> list[dict]:
    """A row a part and size.

    Args:
        seed: of the structures and weights.
        sizes: numbers of atoms.
    """
    table = []
    for model in ("hybrid", "alignn"):
        table += in_own_process(measure, model, seed, sizes)
    return table


def measure(name: str, seed: int, sizes: tuple[int, ...]) -> list[dict]:
    """Milliseconds of the parts of one model, by size."""
    import torch

    from defectkit.graphs.build import build_graph
    from defectkit.graphs.elements import feature_table
    from defectkit.models import build_model

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = load_config(CONFIGS / f"{name}.yaml")
    features = torch.tensor(feature_table(config.features).values, dtype=torch.float32)
    model = build_model(name, features, config.graph, **config.model.settings).eval()
    host = HOSTS["MoS2"].unit_cell()
    table = []
    with torch.no_grad():
        for size in sorted(sizes):
            atoms = mos2_with_adatoms(size, seed)
            graph = build_graph(atoms, config.graph, host)
            parts = {"alignn": lambda g=graph: model(g)}
            if name == "hybrid":
                parts = {
                    "graph": lambda a=atoms: build_graph(a, config.graph, host),
                    **_parts(model, graph),
                }
            for part, work in parts.items():
                table.append(
                    {
                        "part": part,
                        "n_atoms": size,
                        "ms": shortest_ms(work, 1),
                        "peak_mb": round(peak_mb()),
                    }
                )
    return table


def _parts(model, graph) -> dict:
    h = model.local_states(graph)

    return {
        "local": lambda: model.local_states(graph),
        "global": lambda: model.global_states(h, graph),
        "whole": lambda: model(graph),
    }
