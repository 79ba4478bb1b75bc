import json

import numpy as np
import pytest

from defectkit import DefectkitError
from defectkit.graphs.elements import ELEMENTAL, Standardizer, feature_table


def test_known_values_of_selenium():
    table = feature_table(["elemental"])
    selenium = dict(zip(table.names, table[34]))
    # Pauling scale, Cordero's radius; NIST: 9.752 eV and 2.0206 eV; Alvarez: 1.90 Å by Bondi.
    expected = [34, 16, 4, 2.55, 1.20, 1.90, 6, 9.752, 2.0206]
    assert [selenium[name] for name in ELEMENTAL] == pytest.approx(expected, abs=1e-3)
    assert not any(value for name, value in selenium.items() if name.startswith("missing"))


@pytest.mark.parametrize(
    ("z", "electrons"),
    [
        (1, 1),
        (2, 2),
        (6, 4),
        (11, 1),
        (26, 8),
        (30, 12),
        (42, 6),
        (46, 10),
        (58, 4),
        (74, 6),
        (83, 5),
    ],
)
def test_valence_electrons(z, electrons):
    table = feature_table(["elemental"])
    assert table[z][table.names.index("valence_electrons")] == electrons


def test_missing_values_are_filled_by_the_rule_and_flagged():
    table = feature_table(["elemental"])
    value, flag = (
        dict(zip(table.names, table.values.T))[name]
        for name in ("electronegativity", "missing: electronegativity")
    )
    helium, neon, argon, krypton, xenon, radon = 2, 10, 18, 36, 54, 86
    assert flag[[helium, neon, argon]].tolist() == [1, 1, 1]
    assert flag[[krypton, xenon, radon, 42]].tolist() == [0, 0, 0, 0]
    group_mean = value[[krypton, xenon, radon]].mean()
    assert value[[helium, neon, argon]] == pytest.approx(group_mean)
    assert 2.0 < group_mean < 3.0


@pytest.mark.parametrize(
    ("name", "columns"), [("elemental", 9), ("magpie", 64), ("matscholar", 200), ("onehot", 118)]
)
def test_every_group_has_its_columns_and_no_gap(name, columns):
    table = feature_table([name])
    numbers = [n for n in table.names if not n.startswith("missing") and n != "vacancy"]
    assert len(numbers) == columns
    assert len(set(table.names)) == len(table.names) == table.values.shape[1]
    assert np.isfinite(table.values).all()
    flags = table.values[:, table.is_flag]
    assert np.isin(flags, (0, 1)).all()
    # The vacancy's row is zero but for its own flag, which no element has.
    assert table.names[-1] == "vacancy"
    assert table[0].tolist() == [0] * (len(table.names) - 1) + [1]
    assert not table[1:119][:, -1].any()


def test_groups_are_put_side_by_side_in_the_order_asked_for():
    both = feature_table(["onehot", "elemental"])
    elemental, onehot = feature_table(["elemental"]), feature_table(["onehot"])
    assert both.names == (*onehot.names[:-1], *elemental.names)
    assert np.array_equal(both.values, np.hstack([onehot.values[:, :-1], elemental.values]))


def test_known_magpie_value_and_no_zero_for_a_gap():
    table = feature_table(["magpie"])
    assert table[34][table.names.index("MeltingT")] == pytest.approx(494)
    helium = table[2][table.names.index("MeltingT")]  # does not freeze at normal pressure
    assert helium > 10
    assert table[2][table.names.index("missing: MeltingT")] == 1


@pytest.mark.parametrize("names", [["elementary"], []])
def test_unknown_features(names):
    with pytest.raises(DefectkitError, match="choose from elemental, magpie"):
        feature_table(names)


def test_standardizer_uses_the_training_set_and_survives_json():
    table = feature_table(["elemental", "onehot"])
    z = np.array([42, 16, 16, 42, 16, 16, 3, 0, 0])
    scale = Standardizer.fit(table, z)
    scaled = scale(table)
    seen = scaled[z[z > 0]][:, :9]
    varying = table[z[z > 0]][:, :9].std(axis=0) > 0
    assert np.allclose(seen.mean(axis=0), 0)
    assert np.allclose(seen.std(axis=0)[varying], 1)
    assert np.array_equal(scaled.values[:, scaled.is_flag], table.values[:, table.is_flag])
    assert np.array_equal(scaled[0], table[0])
    assert np.isfinite(scaled.values).all()
    again = Standardizer.from_dict(json.loads(json.dumps(scale.to_dict())))
    assert again == scale


def test_standardizer_refuses_other_columns_and_no_atoms():
    table = feature_table(["elemental"])
    scale = Standardizer.fit(table, [42, 16])
    with pytest.raises(DefectkitError, match="trained with"):
        scale(feature_table(["onehot"]))
    with pytest.raises(DefectkitError, match="no atom"):
        Standardizer.fit(table, [0])
    assert set(Standardizer.fit(table, [42, 42]).std) == {1.0}
