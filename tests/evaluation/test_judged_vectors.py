"""Judgement of vectors: probes, order, left-out formulas, paired permutations."""

import numpy as np
import pandas as pd
import pytest

from defectkit import DefectkitError
from defectkit.evaluation import vectors as judge

SYMBOLS = "Li Na K Rb Mg Ca Sr Al Ga In Si Ge Sn P As Sb O S Se Te F Cl Br I Ti Zr Hf Mo W".split()


@pytest.fixture
def perfect():
    """Vectors that hold group and electronegativity along straight lines, and a little noise."""
    known = judge.facts(SYMBOLS)
    noise = np.random.default_rng(0).normal(0, 0.01, (len(SYMBOLS), 3))
    angle = 2 * np.pi * known.group / 18
    table = np.column_stack([np.cos(angle), np.sin(angle), known.electronegativity]) + noise
    return pd.DataFrame(table, SYMBOLS)


@pytest.fixture
def noise():
    return judge.known_vectors("random").loc[SYMBOLS]


def test_probes_find_what_is_there_and_nothing_where_nothing_is(perfect, noise):
    found, nothing = (judge.probe(table).set_index("property") for table in (perfect, noise))
    assert found.score["electronegativity"] > 0.95
    assert nothing.score["electronegativity"] < 0.3
    assert found.score["group"] > nothing.score["group"]
    assert (nothing.baseline[["electronegativity", "covalent_radius"]] == 0).all()
    assert found.baseline["group"] == pytest.approx(4 / len(SYMBOLS))


def test_order_finds_groups_and_their_absence(perfect, noise):
    found, nothing = judge.order(perfect), judge.order(noise)
    assert found["neighbour"] > 0.8 > 0.4 > nothing["neighbour"]
    assert found["clusters"] > 0.7 > 0.3 > abs(nothing["clusters"])
    assert found["pc1"] > nothing["pc1"]


def test_nearest_is_by_angle_of_scaled_vectors(perfect):
    near = judge.nearest(perfect, "Na", k=3)
    assert set(near.index) == {"Li", "K", "Rb"}
    assert near.is_monotonic_decreasing
    alike = judge.similarity(perfect)
    assert np.allclose(np.diag(alike), 1.0)
    stretched = judge.similarity(3.0 * perfect + 5.0)  # scale and origin of a dimension are nothing
    assert np.allclose(alike, stretched)
    with pytest.raises(DefectkitError, match="no vector of Xe"):
        judge.nearest(perfect, "Xe")


WIDTHS = {
    "elemental": 9,
    "magpie": 64,
    "matscholar": 200,
    "megnet": 16,
    "onehot": 118,
    "random": 16,
}


@pytest.mark.parametrize(("name", "width"), WIDTHS.items())
def test_known_vectors_have_a_row_an_element(name, width):
    table = judge.known_vectors(name)
    assert table.shape[1] == width
    assert np.isfinite(table.loc[SYMBOLS].to_numpy(float)).all()


def test_components_are_those_of_the_spread(perfect):
    places, shares = judge.components(perfect)
    assert shares[0] >= shares[1] > 0
    assert np.allclose(places.mean(), 0)
    assert abs(places.pc1.corr(places.pc2)) < 1e-9


def test_features_of_a_formula_are_mean_and_range_over_its_atoms():
    table = pd.DataFrame({"a": [1.0, 4.0], "b": [0.0, 2.0]}, ["Mo", "S"])
    assert np.allclose(judge.formula_features(["MoS2"], table), [[3.0, 4 / 3, 3.0, 2.0]])
    with pytest.raises(DefectkitError, match="MoTe2: there is no vector of Te"):
        judge.formula_features(["MoTe2"], table)


@pytest.mark.parametrize("model", ["mean", *judge.MODELS])
def test_rows_of_a_formula_are_left_out_together(model):
    formulas = [f"{x}{y}" for x in ("Li", "Na", "K", "Rb") for y in ("F", "Cl", "Br")] + ["LiF"]
    table = judge.known_vectors("elemental")
    target = judge.formula_features(formulas, judge.scaled(table))[:, 3]
    wild = target.copy()
    wild[[0, -1]] = 1e3  # whoever learned from the twin would say so
    predicted = judge.left_out(formulas, wild, table, model)
    assert abs(predicted[[0, -1]]).max() < 10
    if model != "mean":
        calm = judge.left_out(formulas, target, table, model)
        mean = judge.left_out(formulas, target, table, "mean")
        assert abs(calm - target).mean() < abs(mean - target).mean()


def test_paired_permutation():
    rng = np.random.default_rng(0)
    first = rng.uniform(0.1, 0.3, 24)
    assert judge.flipped(first, first + 0.02) < 0.001  # always better, if by little
    assert judge.flipped(first, rng.permutation(first)) > 0.05
    same = [judge.flipped(*rng.uniform(0.1, 0.3, (2, 24)), seed=k) for k in range(100)]
    assert np.mean(np.array(same) < 0.1) == pytest.approx(0.1, abs=0.08)
    four = judge.flipped([0.2, 0.2, 0.2, 0.2], np.zeros(4))
    assert four == pytest.approx(2 / 16, abs=0.02)
