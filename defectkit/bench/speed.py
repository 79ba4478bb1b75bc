"""Speed and memory, each measured in a process of its own with one thread.

graphs      builders of crystal graphs, ours and others, by the number of atoms.
throughput  how fast networks learn and predict, at equal hidden width.
scaling     what a prediction costs by the number of atoms, part by part.
predict     how fast structures of a person's own are read and predicted, part by part.
precision   errors and costs of the shipped hybrid with floats of 32 bits, 16 and 8.
"""

import io
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from defectkit.bench.measure import in_own_process, peak_mb, shipped, shortest_ms
from defectkit.structures.hosts import HOSTS

if TYPE_CHECKING:  # they would count in the memory of the builders of graphs
    import pandas as pd
    from pymatgen.core import Structure
    from torch import Tensor
    from torch.nn import Module

    from defectkit.graphs.build import CrystalGraph
    from defectkit.graphs.dataset import GraphDataset
    from defectkit.training.config import RunConfig

ADATOM_HEIGHT = 1.6  # Å above the upper sulfur layer, where a gold atom touches it
BUILDER_SIZES = (28, 50, 75, 200, 500)  # atoms
CUTOFF = 5.0  # Å
BUILDER_REPEATS, BUILDER_SECONDS = 5, 1.0  # a builder runs at least so often and so long

OWN_SIZES = (28, 50, 100)  # atoms
OWN_STRUCTURES = 256
HOST = "MoS2"

Builder = Callable[[], object]


def graph_rows(seed: int, sizes: Sequence[int] = BUILDER_SIZES) -> list[dict]:
    """Builders of crystal graphs: milliseconds a structure and peak memory on one core.

    The structures are MoS2 with gold adatoms. The memory is the process's peak, interpreter and
    libraries included, up to that size.
    """
    table = []
    for builder, (_, packages) in BUILDERS.items():
        measured = in_own_process(measure_builder, builder, sorted(sizes), seed)
        versions = " ".join(f"{name} {version(name)}" for name in ("numpy", *packages))
        table += [
            {
                "builder": builder,
                "n_atoms": n_atoms,
                "ms_per_structure": ms,
                "peak_mb": round(peak),
                "versions": versions,
            }
            for n_atoms, ms, peak in measured
        ]
    return table


def mos2_with_adatoms(n_atoms: int, seed: int) -> Atoms:
    """A MoS2 supercell with gold adatoms on top, `n_atoms` in all, displaced by 0.05 Å."""
    unit = HOSTS["MoS2"].unit_cell()
    layers = (n_atoms - 1) // len(unit)
    # Of the supercells that leave few adatoms, the one nearest to a square.
    n, m = max(
        ((n, m) for n in range(1, layers + 1) for m in [layers // n] if m >= n > layers**0.5 / 2),
        key=lambda size: (size[0] * size[1], size[0]),
    )
    atoms = unit.repeat((n, m, 1))
    metals = atoms.positions[atoms.symbols == "Mo"]
    places = metals[:: max(1, len(metals) // (n_atoms - len(atoms)))]
    places = places[: n_atoms - len(atoms)].copy()
    places[:, 2] = atoms.positions[:, 2].max() + ADATOM_HEIGHT
    atoms += Atoms("Au" * len(places), positions=places)
    atoms.rattle(0.05, rng=np.random.default_rng(seed))
    return atoms


def measure_builder(builder: str, sizes: Sequence[int], seed: int) -> list[tuple]:
    """(atoms, milliseconds, peak MB) of one builder for structures of growing size."""
    from threadpoolctl import threadpool_limits

    prepare, _ = BUILDERS[builder]
    measured = []
    for size in sizes:
        atoms = mos2_with_adatoms(size, seed)
        build = prepare(atoms)
        build()  # it imports what it needs
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        with threadpool_limits(1):
            ms = shortest_ms(build, 1, BUILDER_REPEATS, BUILDER_SECONDS)
        measured.append((len(atoms), ms, peak_mb()))
    return measured


def _complete(atoms: Atoms) -> Builder:
    from defectkit.graphs.build import build_graph
    from defectkit.structures.recognise import recognise

    found = recognise(atoms, HOSTS["MoS2"].unit_cell())
    return lambda: build_graph(atoms, recognition=found)


def _with_recognition(atoms: Atoms) -> Builder:
    from defectkit.graphs.build import build_graph

    host = HOSTS["MoS2"].unit_cell()
    return lambda: build_graph(atoms, host=host)


def _local(atoms: Atoms) -> Builder:
    from defectkit.graphs.periodic import neighbour_edges

    return lambda: neighbour_edges(atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)


def _vesin(atoms: Atoms) -> Builder:
    from vesin import NeighborList

    neighbours = NeighborList(cutoff=CUTOFF, full_list=True, n_threads=1)
    return lambda: neighbours.compute(atoms.positions, atoms.cell.array, atoms.pbc, "ijS")


def _matscipy(atoms: Atoms) -> Builder:
    from matscipy.neighbours import neighbour_list

    return lambda: neighbour_list("ijS", atoms, CUTOFF)


def _ase(atoms: Atoms) -> Builder:
    from ase.neighborlist import neighbor_list

    return lambda: neighbor_list("ijS", atoms, CUTOFF)


def _pymatgen(atoms: Atoms) -> Builder:
    from pymatgen.io.ase import AseAtomsAdaptor

    structure = AseAtomsAdaptor.get_structure(atoms)
    return lambda: structure.get_neighbor_list(CUTOFF)


def _nearest_loop(atoms: Atoms) -> Builder:
    from pymatgen.io.ase import AseAtomsAdaptor

    structure = AseAtomsAdaptor.get_structure(atoms)
    return lambda: nearest_loop(structure)


def nearest_loop(
    structure: "Structure", k: int = 12, radius: float = 8.0
) -> "tuple[Tensor, Tensor, Tensor]":
    """Edges to the k nearest neighbours and back, atom by atom, in the way of ALIGNN's builder.

    After Choudhary and DeCost (npj Comput. Mater. 7, 185, 2021): sort each atom's
    neighbours within `radius`, keep the k-th's shell whole, gather undirected edges in a
    dictionary, and write each twice with its vector. Without the line graph.

    Args:
        structure: a pymatgen `Structure`.
        k: neighbours.
        radius: Å, large enough to hold k neighbours.

    Returns:
        senders (E,), receivers (E,) and vectors (E, 3) Å from receiver to sender, torch tensors.
    """
    import torch

    edges = defaultdict(set)
    for i, neighbours in enumerate(structure.get_all_neighbors(radius)):
        ordered = sorted(neighbours, key=lambda neighbour: neighbour.nn_distance)
        reach = ordered[k - 1].nn_distance
        for neighbour in ordered:
            if neighbour.nn_distance > reach:
                break
            j, image = neighbour.index, np.array(neighbour.image, int)
            pair, step = ((i, j), image) if i <= j else ((j, i), -image)
            edges[pair].add(tuple(step.tolist()))
    senders, receivers, vectors = [], [], []
    for (i, j), images in edges.items():
        for image in images:
            gap = structure.frac_coords[j] + image - structure.frac_coords[i]
            vector = structure.lattice.get_cartesian_coords(gap)
            senders += [j, i]
            receivers += [i, j]
            vectors += [vector, -vector]
    return torch.tensor(senders), torch.tensor(receivers), torch.tensor(np.array(vectors))


# Name: what prepares a builder for a structure, and the packages that it rests on.
BUILDERS: dict[str, tuple[Callable[[Atoms], Builder], tuple[str, ...]]] = {
    "defectkit, complete graph": (_complete, ("vesin", "torch", "torch-geometric")),
    "defectkit, complete graph and recognition": (
        _with_recognition,
        ("vesin", "torch", "torch-geometric", "matscipy", "scipy"),
    ),
    "defectkit, local edges": (_local, ("vesin",)),
    "vesin": (_vesin, ("vesin",)),
    "matscipy": (_matscipy, ("matscipy",)),
    "ase": (_ase, ("ase",)),
    "pymatgen": (_pymatgen, ("pymatgen",)),
    "k-nearest loop over pymatgen": (_nearest_loop, ("pymatgen", "torch")),
}


TRAIN_BATCH, INFER_BATCH, BATCHES = 16, 64, 4
# Name: the configuration it starts from, and what differs. The hidden width is the hybrid's.
NETWORKS: dict[str, tuple[str, dict]] = {
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


def predict_rows(seed: int) -> list[dict]:
    """A row a part and size: structures a second from ASE's atoms to the judged table.

    MoS2 with gold adatoms, relaxed, no two alike, `OWN_STRUCTURES` of each size, three networks,
    and all cores. `peak_mb` is that of the process up to there, libraries included.

    Args:
        seed: of the displacements.
    """
    return [
        {"part": part, "n_atoms": n_atoms, "per_s": round(per_s, 1), "peak_mb": round(peak)}
        for size in OWN_SIZES
        for part, n_atoms, per_s, peak in in_own_process(measure_predictions, size, seed)
    ]


def measure_predictions(size: int, seed: int) -> list[tuple[str, int, float, float]]:
    """(part, atoms, structures a second, peak MB) of the parts of `Predictor.predict`."""
    from defectkit.predict.answer import shipped_predictor
    from defectkit.predict.own import read_own, training_hosts

    predictor, known = shipped_predictor("hybrid"), training_hosts("demo")
    predictor.predict([mos2_with_adatoms(size, seed)])  # it loads the networks
    n, measured = OWN_STRUCTURES, []

    def fresh() -> list[Atoms]:
        return [mos2_with_adatoms(size, seed + k) for k in range(n)]

    def measure(part: str, work: Callable[[list], object], given: list) -> object:
        begin = time.perf_counter()
        done = work(given)
        per_s = n / (time.perf_counter() - begin)
        measured.append((part, size, per_s, peak_mb()))
        return done

    measure("read, host found", lambda some: read_own(some, known), fresh())
    own = measure("read, host given", lambda some: read_own(some, known, HOST), fresh())
    measure("predicted and judged", predictor.predict_own, own)
    measure("all, host given", lambda some: predictor.predict(some, HOST), fresh())
    return measured


def throughput_rows(seed: int) -> list[dict]:
    """A row a network on structures of the demo.

    `train_ms` is a whole step (forward, backward, optimiser) by structure, `infer_ms` the forward
    pass alone without gradients; graphs are there already.

    Args:
        seed: of the weights and of the choice of structures.
    """
    from defectkit.training.config import load_config, with_values
    from defectkit.training.pretrained import CONFIGS

    hidden = load_config(CONFIGS / "hybrid.yaml").model.settings["hidden"]
    table = []
    for name, (file, changes) in NETWORKS.items():
        config = with_values(load_config(CONFIGS / f"{file}.yaml"), changes)
        config = with_values(config, {"model.settings.hidden": hidden})
        measured = in_own_process(measure_network, config, seed)
        table.append({"model": name, "hidden": hidden, **measured, "seed": seed})
    return table


def measure_network(config: "RunConfig", seed: int) -> dict[str, float]:
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

    def step(graph: "CrystalGraph") -> None:
        optimiser.zero_grad()
        terms = loss_terms(model(graph), graph.y_eform, graph.y_spin, config.loss)
        sum(terms.values()).backward()
        optimiser.step()

    def batches(size: int) -> "list[CrystalGraph]":
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


def _angles(graph: "CrystalGraph") -> int:
    return graph.angle_index.shape[1] if "angle_index" in graph else 0


SCALING_SIZES = (28, 75, 200, 500, 1000)


def scaling_rows(seed: int, sizes: Sequence[int] = SCALING_SIZES) -> list[dict]:
    """A row a part of a prediction and size: graph, local part, global part, and ALIGNN.

    Sheets of MoS2 with gold adatoms, no gradients, new weights (they do not change the cost). The
    memory is that of the process so far: sizes grow.

    Args:
        seed: of the structures and weights.
        sizes: numbers of atoms.
    """
    table = []
    for model in ("hybrid", "alignn"):
        table += in_own_process(measure_parts, model, seed, sizes)
    return table


def measure_parts(name: str, seed: int, sizes: Sequence[int]) -> list[dict]:
    """Milliseconds of the parts of one model, by size."""
    import torch

    from defectkit.graphs.build import build_graph
    from defectkit.graphs.elements import feature_table
    from defectkit.models import build_model
    from defectkit.training.config import load_config
    from defectkit.training.pretrained import CONFIGS

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


def _parts(model: "Module", graph: "CrystalGraph") -> dict[str, Callable[[], object]]:
    h = model.local_states(graph)
    return {
        "local": lambda: model.local_states(graph),
        "global": lambda: model.global_states(h, graph),
        "whole": lambda: model(graph),
    }


PRECISIONS = ("FP32", "bf16", "INT8")
ALONE, TOGETHER = 8, 64  # structures that are timed


def precision_rows(seed: int) -> list[dict]:
    """A row a precision of the shipped hybrid, on all test rows; see `compare_precisions`.

    * FP32: weights and arithmetic as trained.
    * bf16: `torch.autocast`: matrix products in bfloat16. Lengths stay in FP32, which is why the
      weights are not cast: numbers between 8 and 16 Å would come in steps of 0.06 Å.
    * INT8: dynamic quantisation: weights of the linear layers as bytes, and their inputs too, as
      they come. Filters of the radial basis are no plain linear layers and stay as they are.

    Args:
        seed: of the bootstrap.
    """
    from defectkit.graphs.dataset import GraphDataset

    hybrid = shipped("hybrid")
    labels = hybrid.run.part("test")[["eform", "spin"]]
    graphs = hybrid.graphs()
    tested = GraphDataset.from_graphs(graphs[k] for k in graphs.select(labels.index))
    return compare_precisions(hybrid.model, tested, labels, seed)


def compare_precisions(
    model: "Module", graphs: "GraphDataset", labels: "pd.DataFrame", seed: int = 0
) -> list[dict]:
    """Errors and costs of a model in every one of `PRECISIONS`.

    Args:
        model: of `models.MODELS`, with 32 bits.
        graphs: `GraphDataset` of the test rows.
        labels: columns eform (eV) and spin (μB), by uid.
        seed: of the bootstrap.

    Returns:
        For each: precision, n_test, eform_mae with its interval, spin_mae; `change` of eform_mae
        from FP32 with `change_lo` to `change_hi`, a paired bootstrap (95 %); and what
        `measure_precision` finds.
    """
    from defectkit.evaluation.metrics import compare, scores

    table = []
    for precision in PRECISIONS:
        predicted, costs = in_own_process(measure_precision, model, graphs, precision)
        judged = labels.join(predicted.add_suffix("_pred"))
        if precision == PRECISIONS[0]:
            reference = judged
        found, change = scores(judged, seed), compare(judged, reference, seed=seed)
        errors = {name: found[name] for name in ("eform_mae", "eform_mae_lo", "eform_mae_hi")}
        errors |= {"spin_mae": found["spin_mae"], "change": change["difference"]}
        errors |= {"change_lo": change["lo"], "change_hi": change["hi"]}
        table.append(
            {
                "precision": precision,
                "n_test": len(judged),
                **{name: round(value, 5) for name, value in errors.items()},
                **costs,
            }
        )
    return table


def measure_precision(
    model: "Module", graphs: "GraphDataset", precision: str
) -> "tuple[pd.DataFrame, dict[str, float]]":
    """Predictions of all `graphs`, by uid, and what they cost in this process with one thread.

    `infer_ms_b1` and `infer_ms_b64` are milliseconds a structure, alone and 64 at a time, the
    graphs being there already; `weights_kb` is the size of the weights as `torch.save` writes them,
    which is about what they take in memory; `peak_mb` is the memory of the process.
    """
    import torch

    from defectkit.training.inference import predict

    torch.set_num_threads(1)
    if precision == "INT8":
        model = quantised(model)
    alone = [graphs.batch([number]) for number in range(min(ALONE, len(graphs)))]
    together = graphs.batch(range(min(TOGETHER, len(graphs))))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        predicted = predict(model, graphs)
        costs = {
            "infer_ms_b1": shortest_ms(lambda: [model(one) for one in alone], len(alone)),
            "infer_ms_b64": shortest_ms(lambda: model(together), len(together.uid)),
        }
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    costs |= {"weights_kb": round(file.tell() / 1e3), "peak_mb": round(peak_mb())}
    return predicted, costs


def quantised(model: "Module") -> "Module":
    """A copy of the model whose linear layers compute with bytes.

    torch plans to hand this over to torchao, which the kit does not need otherwise, and says so in
    warnings that are no news to the reader of the table.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
