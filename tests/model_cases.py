"""Small models and equal crystals for the tests of models."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from ase import Atoms
from crystals import defective, host
from torch import Tensor, nn
from torch_geometric.data import Batch

from defectkit.graphs import CrystalGraph, GraphConfig, build_graph
from defectkit.models import MODELS, build_model
from defectkit.structures.recognise import Recognition, recognise

MODEL_NAMES = [name for name in MODELS if name != "sites"]  # which read all atoms; see test_sites
SMALL = {
    "cgcnn": {"hidden": 12, "layers": 2, "radial": 10, "readout": 8},
    "alignn": {
        "hidden": 12,
        "alignn_layers": 2,
        "gcn_layers": 1,
        "radial": 10,
        "angular": 6,
        "embedding": 8,
    },
    "matformer": {"hidden": 12, "layers": 2, "heads": 2, "radial": 24},
    "hybrid": {
        "hidden": 16,
        "local_layers": 2,
        "global_layers": 1,
        "attention_heads": 2,
        "radial": 10,
        "angular_cutoff": 3.5,
    },
    "sites": {"hidden": 12, "pair": 8, "layers": 2, "radial": 10},
}
CONFIG = GraphConfig(cutoff=4.7, angle_cutoff=3.5)  # between the shells of MoS2
N_FEATURES = 7


def feature_table(width: int = N_FEATURES) -> Tensor:
    """(119, width) made-up element features; those of a vacancy are zero."""
    generator = torch.Generator().manual_seed(5)
    table = torch.randn(119, width, generator=generator, dtype=torch.float64)
    table[0] = 0.0
    return table


def fresh_model(name: str, config: GraphConfig = CONFIG, seed: int = 0, **settings) -> nn.Module:
    """A small model in the precision of the day, with heads that know the range of the labels."""
    torch.manual_seed(seed)
    model = build_model(name, feature_table(), config, **SMALL[name] | settings)
    model.heads.fit(torch.tensor([-1.0, 0.5, 4.0]), torch.tensor([0.0, 1.0, 2.5]))
    return model.eval()


def small_model(name: str, config: GraphConfig = CONFIG, seed: int = 0, **settings) -> nn.Module:
    """One in float64, with running means as after some training."""
    model = fresh_model(name, config, seed, **settings)
    model.train()(mixed_batch(config))
    return model.eval()


def graph_of(
    atoms: Atoms, config: GraphConfig = CONFIG, recognition: Recognition | None = None
) -> CrystalGraph:
    return build_graph(atoms, config, recognition=recognition, dtype=torch.float64)


@cache
def known_defect() -> tuple[Atoms, Recognition]:
    """A substitution, an adsorbate and a vacancy in MoS2, as atoms and as they are read."""
    return defective(), recognise(defective(), host())


def mapped(
    atoms: Atoms, found: Recognition, move: Callable[[np.ndarray], np.ndarray]
) -> tuple[Atoms, Recognition]:
    """The crystal after `move` of every position (n, 3)."""
    atoms = atoms.copy()
    atoms.positions = move(atoms.positions)
    return atoms, replace(
        found,
        ideal_positions=move(found.ideal_positions),
        vacancy_positions=move(found.vacancy_positions),
    )


def reordered(atoms: Atoms, found: Recognition, order: np.ndarray) -> tuple[Atoms, Recognition]:
    """The crystal with its atoms in another order."""
    return atoms[order], replace(
        found,
        site_kind=found.site_kind[order],
        original_z=found.original_z[order],
        ideal_positions=found.ideal_positions[order],
    )


def molecule(*positions, symbols: str = "WSS", cell: float = 20.0) -> Atoms:
    """Atoms (Å) far from their images."""
    return Atoms(symbols, positions=positions, cell=[cell] * 3, pbc=[True, True, False])


@cache
def mixed_graphs(config: GraphConfig = CONFIG) -> tuple[CrystalGraph, ...]:
    """A defect, a pristine cell, two atoms with an edge and no angle, one without an edge."""
    atoms, found = known_defect()
    return (
        graph_of(atoms, config, found),
        graph_of(host().repeat((2, 2, 1)), config),
        graph_of(molecule([0, 0, 0], [2, 0, 0], symbols="WS"), config),
        graph_of(molecule([0, 0, 0], symbols="W"), config),
    )


def mixed_batch(config: GraphConfig = CONFIG) -> CrystalGraph:
    return Batch.from_data_list(mixed_graphs(config))
