"""Tables of the defect's sites, and the linear models that read counts of kinds and pairs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from crystals import defective, equal_crystals, host
from sklearn.linear_model import Ridge

from defectkit import DefectkitError
from defectkit.graphs import GraphConfig, GraphDataset, build_graph
from defectkit.models.tabular import TABULAR, TabularModel, table_for
from defectkit.models.tabular.sparse import (
    RobustRidge,
    kind_counts,
    pair_counts,
    site_features,
)
from defectkit.training.config import ModelConfig, RunConfig
from defectkit.training.prepared import check_config

SITES = GraphConfig(nodes="defects", angle_cutoff=None)
IMAGES = replace(SITES, image_radius=14.0)
SIZE = 5
KINDS = {"S>": 1.5, "S>Se": -0.4, "Mo>W": 0.2, "Mo>": 3.0}


def decorated(rng: np.random.Generator, n: int) -> Atoms:
    """MoS2 with n sites missing or replaced."""
    atoms = host().repeat((SIZE, SIZE, 1))
    chosen = rng.choice(len(atoms), n, replace=False)
    gone = []
    for site in chosen:
        if rng.random() < 0.5:
            gone.append(site)
        else:
            atoms.symbols[site] = {"S": "Se", "Mo": "W"}[atoms.symbols[site]]
    del atoms[gone]
    return atoms


def graphs_of(structures, config: GraphConfig = IMAGES) -> GraphDataset:
    graphs = [build_graph(atoms, config, host()) for atoms in structures]
    for number, graph in enumerate(graphs):
        graph.uid = f"row{number}"
    return GraphDataset.from_graphs(graphs)


def frame_of(graphs: GraphDataset, name: str = "MoS2") -> pd.DataFrame:
    return pd.DataFrame({"host": name}, index=graphs.uids)


@pytest.fixture(scope="module")
def graphs() -> GraphDataset:
    rng = np.random.default_rng(0)
    return graphs_of([decorated(rng, rng.integers(1, 8)) for _ in range(160)])


def test_kinds_and_pairs_of_a_known_defect():
    atoms = host().repeat((SIZE, SIZE, 1))
    first = int(np.flatnonzero(atoms.symbols == "S")[0])
    distance = atoms.get_distances(first, range(len(atoms)), mic=True)
    second = int(np.flatnonzero((atoms.symbols == "S") & np.isclose(distance, 3.18, atol=0.1))[0])
    atoms.symbols[second] = "Se"
    far = int(np.flatnonzero(atoms.symbols == "Mo")[distance[atoms.symbols == "Mo"].argmax()])
    del atoms[[first, far]]
    one = graphs_of([atoms])
    hosts = frame_of(one).host
    kinds = kind_counts(one, hosts).iloc[0]
    assert kinds.to_dict() == {f"counts: MoS2 | {kind}": 1 for kind in ("Mo>", "S>", "S>Se")}
    pairs = pair_counts(one, hosts).iloc[0].drop(kinds.index)
    assert pairs[f"counts: MoS2 | S> S>Se | {distance[second]:.1f}"] == 1
    assert len(pairs) == pairs.sum() == 3


def test_a_pair_is_seen_through_its_nearest_image(graphs):
    hosts = frame_of(graphs).host
    structures = np.random.default_rng(1)
    atoms = [decorated(structures, 4) for _ in range(5)]
    all_images, nearest = (graphs_of(atoms, config) for config in (IMAGES, SITES))
    pd.testing.assert_frame_equal(pair_counts(all_images, hosts), pair_counts(nearest, hosts))
    counts = pair_counts(graphs, hosts)
    n = graphs.n_nodes
    pairs = [name for name in counts if name.count(" | ") == 2]
    np.testing.assert_array_equal(counts[pairs].sum(axis=1), n * (n - 1) // 2)
    np.testing.assert_array_equal(counts.drop(columns=pairs).sum(axis=1), n)


def test_equal_crystals_have_equal_rows_of_sites():
    table = site_features(graphs_of(equal_crystals(defective())))
    assert table.columns.is_unique
    values = table.to_numpy(float)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values, values[:1].repeat(5, axis=0), atol=1e-4)


def test_a_row_does_not_depend_on_its_neighbours(graphs):
    table = site_features(graphs)
    for number in (0, 1):
        alone = GraphDataset.from_graphs([graphs[number]])
        row = site_features(alone).reindex(columns=table.columns, fill_value=0.0)
        pd.testing.assert_frame_equal(row, table.iloc[[number]], check_dtype=False, rtol=1e-5)


def energies(graphs: GraphDataset) -> pd.Series:
    """Sums over sites and over pairs nearer than 5 Å, eV."""
    counts = pair_counts(graphs, frame_of(graphs).host)
    weight = {}
    for name in counts:
        kind, _, distance = name.split(" | ", 1)[1].partition(" | ")
        near = distance and float(distance) < 5.0
        weight[name] = (0.3 / float(distance) if near else 0.0) if distance else KINDS[kind]
    return counts @ pd.Series(weight)


@pytest.mark.parametrize("name", sorted(set(TABULAR) - {"mean", "names", "forest"}))
def test_models_learn_energies_of_sites(graphs, name):
    frame, eform = frame_of(graphs), energies(graphs)
    spin, table = eform * np.nan, table_for(name, graphs, frame)
    train, test = table.index[:120], table.index[120:]
    errors = []
    for model in (TabularModel("mean", by_site=True), TabularModel(name, by_site=True)):
        read = table_for("mean", graphs, frame) if errors == [] else table
        predicted = model.fit(read.loc[train], eform, spin).predict(read.loc[test]).eform
        errors.append((predicted - eform[test]).abs().mean())
    assert errors[1] < {"pairs": 0.1, "lightgbm": 0.5}.get(name, 0.4) * errors[0]


def test_the_energy_of_the_mean_grows_with_the_sites(graphs):
    table = table_for("mean", graphs, frame_of(graphs))
    eform, spin = energies(graphs), pd.Series(np.nan, graphs.uids)
    by_site = TabularModel("mean", by_site=True).fit(table, eform, spin).predict(table).eform
    n = pd.Series(graphs.n_nodes, graphs.uids)
    np.testing.assert_allclose(by_site, n * (eform / n).mean())
    as_it_is = TabularModel("mean").fit(table, eform, spin).predict(table).eform
    np.testing.assert_allclose(as_it_is, eform.mean())


@pytest.mark.parametrize("name", ["composition", "pairs"])
def test_what_was_not_learned_counts_for_nothing(graphs, name):
    frame, eform = frame_of(graphs), energies(graphs)
    table, spin = table_for(name, graphs, frame), eform * np.nan
    train = [uid for uid in graphs.uids[:120] if not table["counts: MoS2 | Mo>W"][uid]]
    model = TabularModel(name).fit(table.loc[train], eform, spin)
    few = GraphDataset.from_graphs([graphs[k] for k in range(120, 130)])
    alone = model.predict(table_for(name, few, frame)).eform
    assert alone.tolist() == pytest.approx(model.predict(table.loc[few.uids]).eform.tolist())
    elsewhere = model.predict(table_for(name, few, frame.assign(host="unheard of"))).eform
    np.testing.assert_allclose(elsewhere, eform[train].mean())


def test_robust_ridge_passes_over_outliers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.01 * rng.normal(size=200)
    y[:10] += 30.0
    plain = Ridge(alpha=1e-3, fit_intercept=False).fit(x, y)
    robust = RobustRidge(alpha=1e-3).fit(x, y)
    errors = [np.abs(model.coef_ - [1.0, -2.0, 0.5]).max() for model in (plain, robust)]
    assert errors[1] < 0.1 * errors[0]


@pytest.mark.parametrize("name", ["composition", "pairs"])
def test_counts_need_graphs_of_sites(name):
    with pytest.raises(DefectkitError, match="counts the sites"):
        check_config(RunConfig(ModelConfig(name)))
    check_config(RunConfig(ModelConfig(name), graph=SITES))
    with pytest.raises(DefectkitError, match="reads pairs"):
        check_config(RunConfig(ModelConfig(name), graph=replace(SITES, all_pairs=False)))
