"""Builders of crystal graphs, ours and others: time and memory by the number of atoms."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np
from ase import Atoms

from defectkit.bench import in_own_process, peak_mb
from defectkit.structures.hosts import HOSTS

ADATOM_HEIGHT = 1.6  # Å above the upper sulfur layer, where a gold atom touches it
SIZES = (28, 50, 75, 200, 500)  # atoms
CUTOFF = 5.0  # Å
REPEATS, SECONDS = 5, 1.0  # a builder runs at least so often and so long


def rows(seed: int, sizes: Sequence[int] = SIZES) -> list[dict]:
    """Builders of crystal graphs: milliseconds a structure and peak memory on one core.

    Each builder works in a process of its own with one thread, on MoS2 with gold adatoms. The
    time is the shortest of the repeats, which other work on the machine disturbs least. The
    memory is the process's peak, interpreter and libraries included, up to that size.
    """
    table = []
    for builder, (_, packages) in BUILDERS.items():
        measured = in_own_process(_measure, builder, sorted(sizes), seed)
        versions = " ".join(f"{name} {version(name)}" for name in ("numpy", *packages))
        table += [
            {
                "builder": builder,
                "n_atoms": n_atoms,
                "ms_per_structure": round(1e3 * seconds, 3),
                "peak_mb": round(peak),
                "versions": versions,
            }
            for n_atoms, seconds, peak in measured
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


def _measure(builder: str, sizes: list[int], seed: int) -> list[tuple[int, float, float]]:
    """(atoms, seconds, peak MB) of one builder for structures of growing size."""
    from threadpoolctl import threadpool_limits

    prepare, _ = BUILDERS[builder]
    measured = []
    for size in sizes:
        atoms = mos2_with_adatoms(size, seed)
        build = prepare(atoms)
        build()  # imports and first allocations
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        times = []
        with threadpool_limits(1):
            while len(times) < REPEATS or sum(times) < SECONDS:
                begin = time.perf_counter()
                build()
                times.append(time.perf_counter() - begin)
        measured.append((len(atoms), min(times), peak_mb()))
    return measured


def _complete(atoms: Atoms) -> Callable:
    from defectkit.graphs.build import build_graph
    from defectkit.structures.recognise import recognise

    found = recognise(atoms, HOSTS["MoS2"].unit_cell())
    return lambda: build_graph(atoms, recognition=found)


def _with_recognition(atoms: Atoms) -> Callable:
    from defectkit.graphs.build import build_graph

    host = HOSTS["MoS2"].unit_cell()
    return lambda: build_graph(atoms, host=host)


def _local(atoms: Atoms) -> Callable:
    from defectkit.graphs.periodic import neighbour_edges

    return lambda: neighbour_edges(atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)


def _vesin(atoms: Atoms) -> Callable:
    from vesin import NeighborList

    neighbours = NeighborList(cutoff=CUTOFF, full_list=True, n_threads=1)
    return lambda: neighbours.compute(atoms.positions, atoms.cell.array, atoms.pbc, "ijS")


def _matscipy(atoms: Atoms) -> Callable:
    from matscipy.neighbours import neighbour_list

    return lambda: neighbour_list("ijS", atoms, CUTOFF)


def _ase(atoms: Atoms) -> Callable:
    from ase.neighborlist import neighbor_list

    return lambda: neighbor_list("ijS", atoms, CUTOFF)


def _pymatgen(atoms: Atoms) -> Callable:
    from pymatgen.io.ase import AseAtomsAdaptor

    structure = AseAtomsAdaptor.get_structure(atoms)
    return lambda: structure.get_neighbor_list(CUTOFF)


def _nearest_loop(atoms: Atoms) -> Callable:
    from pymatgen.io.ase import AseAtomsAdaptor

    structure = AseAtomsAdaptor.get_structure(atoms)
    return lambda: nearest_loop(structure)


def nearest_loop(structure, k: int = 12, radius: float = 8.0):
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
BUILDERS: dict[str, tuple[Callable[[Atoms], Callable], tuple[str, ...]]] = {
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
