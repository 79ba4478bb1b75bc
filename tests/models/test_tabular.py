from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from crystals import defective, equal_crystals, host

from defectkit import DefectkitError
from defectkit.data import load
from defectkit.graphs import GraphConfig, GraphDataset, build_graph, load_graphs
from defectkit.models.tabular import (
    TABULAR,
    TabularModel,
    composition_features,
    name_features,
    surroundings_features,
    table_for,
    tabulate,
)
from defectkit.structures.record import DefectRecord

CONFIG = GraphConfig(angle_cutoff=None, all_pairs=False)
OF_ATOMS = set(TABULAR) - {"composition", "pairs"}  # those read graphs of sites alone
FAST = {"forest": {"n_estimators": 20}, "lightgbm": {"n_estimators": 100}}


def table_of(*structures) -> pd.DataFrame:
    return tabulate(
        GraphDataset.from_graphs(
            build_graph(atoms, CONFIG, host(), dtype=torch.float64) for atoms in structures
        )
    )


def record(**fields) -> DefectRecord:
    atoms = defective()
    unrelaxed = atoms.positions + 0.01
    return DefectRecord("a", atoms, "MoS2", "nobody", unrelaxed=unrelaxed, **fields)


@pytest.fixture(scope="module")
def demo():
    """500 rows of the demo: the data set and their table."""
    data = load("demo")
    good = data.frame[data.frame.converged & (data.frame.eform.abs() < 10)]
    data = data.subset(good.sample(500, random_state=0).index)
    return data, tabulate(load_graphs(data.records, data.hosts, CONFIG))


@pytest.fixture(scope="module")
def parts(demo):
    """Training and test tables, and the labels of all."""
    data, table = demo
    return table.iloc[:400], table.iloc[400:], data.frame.eform, data.frame.spin


def test_every_value_is_a_number(demo):
    data, table = demo
    assert table.index.tolist() == data.frame.index.tolist()
    assert table.columns.is_unique
    assert np.isfinite(table.to_numpy(float)).all()
    assert {"vacancy", "complex", "adsorbate"} < set(data.frame.defecttype)


def test_values_of_a_known_defect():
    row = table_of(defective()).iloc[0]  # W on Mo, S missing, Li on top
    assert row["composition: MagpieData minimum Number"] == 3
    assert row["composition: MagpieData maximum Number"] == 74
    assert row["dopant: Z"] == pytest.approx((74 + 3) / 2)
    assert (row["replaced: Z"], row["vacant: Z"]) == (42, 16)
    assert row["host: Z"] == pytest.approx((42 + 2 * 16) / 3)
    assert row["spread: Z"] == pytest.approx(np.std([42, 16, 16]))
    assert row["misfit: Z"] == 74 - 42
    assert row[[f"kind: {k}" for k in ("substitution", "adsorbate", "vacancy")]].tolist() == [1] * 3
    assert row["layer: sites"] == 27
    assert row["layer: thickness"] == pytest.approx(np.ptp(host().positions[:, 2]), abs=1e-5)
    area = np.linalg.norm(np.cross(*host().cell.array[:2]))
    assert row["layer: area per site"] == pytest.approx(area / 3, abs=1e-5)
    assert row["at vacancy: distance 1"] < 2.3 < row["at vacancy: distance 2"]  # Li on top, Mo


def test_surroundings_of_a_dopant_on_an_ideal_site():
    pristine = host().repeat((3, 3, 1))
    pristine.symbols[0] = "W"
    atoms = pristine.copy()
    atoms.positions[0, 2] += 0.2
    at_rest, moved = (table_of(a).filter(like="at dopant").iloc[0] for a in (pristine, atoms))
    at_rest.index = moved.index = at_rest.index.str.removeprefix("at dopant: ")
    bond = pristine.get_distances(0, range(1, 27), mic=True).min()
    radii = 1.62 + 1.05  # Å, W and S
    for k in range(1, 7):
        assert at_rest[f"distance {k}"] == pytest.approx(bond, abs=1e-5)
        assert at_rest[f"relative distance {k}"] == pytest.approx(bond / radii, abs=1e-5)
    assert at_rest["distance 7"] == pytest.approx(host().cell.lengths()[0], abs=1e-5)
    assert at_rest["coordination"] == 6 + 6  # S, and Mo at the sum of their large radii
    assert 16 < at_rest["near Z"] < 17  # S, a little of the Mo beyond
    assert at_rest["step Z"] == pytest.approx(74 - at_rest["near Z"])
    assert at_rest["distance of other part"] == 5.0
    zeros = ["height", "displacement", "near displacement", "strain", "near tilt", "asymmetry"]
    assert at_rest[zeros].abs().max() < 1e-5
    assert moved[["height", "displacement"]].tolist() == pytest.approx([0.2, 0.2], abs=0.01)
    assert moved["height over surface"] == pytest.approx(
        0.2 - np.ptp(host().positions[:, 2]) / 2, abs=0.01
    )
    assert moved["near tilt"] > 0.05


def test_equal_crystals_have_equal_rows():
    atoms = defective()
    table = table_of(*equal_crystals(atoms))
    difference = table.to_numpy(float) - table.to_numpy(float)[0]
    worst = np.abs(difference).max(axis=0)
    assert worst.max() < 1e-6, table.columns[worst.argmax()]
    atoms.positions[0] += [0.02, 0, 0]
    assert np.abs(table_of(atoms).to_numpy(float) - table.to_numpy(float)[0]).max() > 1e-3


def test_no_label_leaks_into_the_table():
    bare = record()
    labels = dict.fromkeys(("eform", "spin", "en1", "en2", "conv1", "conv2", "depth"), 7.0)
    labels |= dict.fromkeys(("extension_factor", "hostenergy", "dopant_chemical_potential"), 9.0)
    labelled = replace(bare, defecttype="vacancy", max_force=3.0, strain=0.1, **labels)
    for positions in ("relaxed", "unrelaxed"):
        config = replace(CONFIG, positions=positions)
        rows = [tabulate(load_graphs([r], {"MoS2": host()}, config)) for r in (bare, labelled)]
        pd.testing.assert_frame_equal(*rows)


def test_another_dopant_has_another_row():
    other = defective()
    other.symbols[0] = "Cr"
    table = table_of(defective(), other)
    changed = table.columns[table.iloc[0] != table.iloc[1]]
    for part in ("composition: ", "dopant: ", "misfit: ", "at dopant: "):
        assert any(name.startswith(part) for name in changed), part
    assert not any(name.startswith(("host: ", "replaced: ")) for name in changed)


@pytest.mark.parametrize(
    "changes",
    [{"cutoff": 3.0}, {"cutoff": 7.0}, {"neighbours": 4}, {"all_pairs": True}],
    ids=str,
)
def test_the_table_does_not_depend_on_the_edges_of_the_graphs(demo, changes):
    data, table = demo
    graphs = load_graphs(data.records[:40], data.hosts, replace(CONFIG, **changes))
    pd.testing.assert_frame_equal(tabulate(graphs), table[:40])


def test_names_are_a_column_a_site_a_dopant_and_what_is_removed(demo):
    data, _ = demo
    table = name_features(data.frame)
    assert set(np.unique(table)) == {0.0, 1.0}
    assert table.index.equals(data.frame.index)
    row = data.frame.iloc[0]
    ones = table.columns[table.iloc[0] == 1]
    assert f"name: site {row.host} {row.site}" in ones
    assert f"name: removed {row.host} without {row.removed}" in ones
    assert len(ones) == 2 + (row.dopant != "")
    two = data.frame.iloc[[0]].assign(dopant="Li,Na")
    assert {"name: dopant Li", "name: dopant Na"} <= set(name_features(two))


def test_names_beat_the_composition_and_do_without_those_never_seen(demo):
    data, composition = demo
    table, frame = name_features(data.frame), data.frame
    train, test = table.index[:200], table.index[200:]
    errors = {}
    for name, whole in (("ridge", composition), ("names", table)):
        model = TabularModel(name).fit(whole.loc[train], frame.eform, frame.spin)
        errors[name] = (model.predict(whole.loc[test]).eform - frame.eform[test]).abs().mean()
    assert errors["names"] < errors["ridge"]
    assert all(column.startswith("name: ") for column in model.columns)
    known = frame.loc[train[:1]]
    elsewhere = pd.concat([known.assign(host="unheard of"), known.assign(host="of", dopant="Og")])
    elsewhere.index = ["a", "b"]
    predicted = model.predict(name_features(elsewhere)).eform
    weights = pd.Series(model.estimators["eform"].coef_, model.columns)
    intercept = model.estimators["eform"].intercept_
    own = weights[f"name: dopant {known.dopant.iloc[0]}"] if known.dopant.iloc[0] else 0.0
    assert predicted.tolist() == pytest.approx([intercept + own, intercept])


def test_every_model_has_its_table(demo):
    data, table = demo
    graphs = load_graphs(data.records[:5], data.hosts, CONFIG)
    assert table_for("names", graphs, data.frame).equals(name_features(data.frame[:5]))
    for name in OF_ATOMS - {"names"}:
        assert table_for(name, graphs, data.frame).columns.equals(table.columns)


def test_what_a_defect_lacks_is_zero():
    pristine = host().repeat((3, 3, 1))
    table = table_of(pristine)
    about_defects = table.filter(regex="^(dopant|replaced|vacant|misfit|kind|at )")
    assert about_defects.shape[1] > 100
    assert (about_defects == 0).all(axis=None)
    assert table["layer: sites"].item() == 27


def test_rows_do_not_depend_on_their_neighbours_in_the_table(demo):
    data, table = demo
    graphs = load_graphs(data.records[:3], data.hosts, CONFIG)
    pd.testing.assert_frame_equal(tabulate(graphs), table.iloc[:3], rtol=1e-6)
    joined = composition_features(graphs).join(surroundings_features(graphs))
    pd.testing.assert_frame_equal(joined, tabulate(graphs))


@pytest.mark.parametrize("name", sorted(OF_ATOMS - {"mean", "names"}))
def test_models_beat_the_mean(parts, name):
    train, test, eform, spin = parts
    settings = {"ridge": {"alpha": 100.0}, **FAST}[name]
    errors = {}
    for model in (TabularModel("mean"), TabularModel(name, **settings)):
        predicted = model.fit(train, eform, spin).predict(test)
        assert predicted.index.equals(test.index)
        errors[len(errors)] = (predicted.eform - eform[test.index]).abs().mean()
    assert errors[1] < (0.95 if name == "ridge" else 0.75) * errors[0]


def test_the_mean_is_the_mean(parts):
    train, test, eform, spin = parts
    predicted = TabularModel("mean").fit(train, eform, spin).predict(test)
    np.testing.assert_allclose(predicted.eform, eform[train.index].mean())
    np.testing.assert_allclose(predicted.spin, spin[train.index].mean())


@pytest.mark.parametrize("name", ["forest", "lightgbm"])
def test_equal_seeds_give_equal_models(parts, name):
    train, test, eform, spin = parts
    first, second, other = (
        TabularModel(name, seed=seed, **FAST[name]).fit(train, eform, spin).predict(test)
        for seed in (3, 3, 4)
    )
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert (first.eform != other.eform).any()


def test_ridge_reads_the_composition_alone(parts):
    train, test, eform, spin = parts
    ridge = TabularModel("ridge").fit(train, eform, spin)
    assert len(ridge.columns) == 132
    assert ridge.predict(test[ridge.columns]).equals(ridge.predict(test))
    lightgbm = TabularModel("lightgbm", n_estimators=1).fit(train, eform, spin)
    assert lightgbm.columns == train.columns.tolist()


def test_unknown_labels_are_left_out(parts):
    train, test, eform, spin = parts
    known = train.index[:150]
    gaps = eform.where(eform.index.isin(known))
    expected = TabularModel("ridge").fit(train.loc[known], eform, spin).predict(test)
    predicted = TabularModel("ridge").fit(train, gaps, spin).predict(test)
    np.testing.assert_allclose(predicted.eform, expected.eform)
    assert not np.allclose(predicted.spin, expected.spin)  # all 200 moments are known
    silent = TabularModel("ridge").fit(train, eform, spin * np.nan).predict(test)
    assert silent.spin.isna().all()
    assert silent.eform.notna().all()


def test_moments_are_not_negative(parts):
    train, test, eform, _ = parts
    signed = eform[train.index] - eform[train.index].mean()
    model = TabularModel("ridge", alpha=100.0).fit(train, eform, signed)
    raw = model.estimators["spin"].predict(test[model.columns].to_numpy())
    assert raw.min() < 0
    np.testing.assert_allclose(model.predict(test).spin, raw.clip(min=0))


def test_errors_say_what_is_wrong(parts):
    train, test, eform, spin = parts
    with pytest.raises(DefectkitError, match="tree"):
        TabularModel("tree")
    with pytest.raises(DefectkitError, match="leaves"):
        TabularModel("lightgbm", leaves=3)
    with pytest.raises(DefectkitError, match="fit"):
        TabularModel("mean").predict(test)
    model = TabularModel("mean").fit(train, eform, spin)
    with pytest.raises(DefectkitError, match="lacks 1 column"):
        model.predict(test.drop(columns=model.columns[0]))
