"""Values that cannot be are flagged; equal crystals, smooth curves and rows of dopants."""

import numpy as np
import pandas as pd
import pytest
import torch
from ase import Atoms
from crystals import defective, host
from model_cases import fresh_model

from defectkit import DefectkitError
from defectkit.graphs import GraphConfig
from defectkit.predict.physics import (
    RULES,
    SAME_CRYSTAL,
    displacement_curve,
    dopant_series,
    equal_crystals,
    flags,
    largest_moment,
)
from defectkit.structures.record import DefectRecord

CONFIG = GraphConfig(cutoff=4.0, angle_cutoff=None)
MOS2 = {"MoS2": host()}


@pytest.fixture(scope="module")
def model():
    return fresh_model("hybrid", CONFIG)


def adatom() -> DefectRecord:
    """Lithium above a sulfur atom."""
    atoms = host().repeat((3, 3, 1))
    top = atoms.positions[atoms.positions[:, 2].argmax()]
    atoms += Atoms("Li", positions=[top + [0, 0, 2.2]])
    return DefectRecord("a", atoms, "MoS2", "nobody", unrelaxed=atoms.positions + 0.01)


def found(table: pd.DataFrame, uid) -> set[str]:
    return set(table.columns[table.loc[uid] != ""])


def test_every_rule():
    predictions = pd.DataFrame(
        {"eform": [1.0, np.nan, 30.0, 1.0, 1.0], "spin": [1.0, 0.0, 0.0, -0.2, 20.0]}, list("abcde")
    )
    atoms = dict.fromkeys("abcde", Atoms("MoS2"))
    table = flags(predictions, (-2.0, 8.0), (0.0, 10.0), atoms)
    assert list(table) == list(RULES)
    assert found(table, "a") == set()
    assert found(table, "b") == {"no number"}
    assert found(table, "c") == {"extreme energy"}
    assert found(table, "d") == {"negative moment"}
    assert found(table, "e") == {"extreme moment", "impossible moment"}
    assert "-2.0 to 8.0 eV" in table.loc["c", "extreme energy"]


def test_values_at_the_edge_of_the_training_labels_pass():
    predictions = pd.DataFrame({"eform": [-2.9, 8.9], "spin": [10.5, 0.0]})
    assert (flags(predictions, (-2.0, 8.0), (0.0, 10.0)) == "").all(axis=None)


def test_electrons_limit_the_moment():
    assert largest_moment(Atoms("Cr")) == 6  # 3d5 4s1
    assert largest_moment(Atoms("Gd")) == 8  # 4f7 5d1
    assert largest_moment(Atoms("N")) == 3
    assert largest_moment(Atoms("MoS2")) == 6 + 2 * 3


def test_equal_crystals_have_equal_energies(model):
    records = [DefectRecord("b", defective(), "MoS2", "nobody"), adatom()]
    table = equal_crystals(model, CONFIG, records, MOS2)
    assert table.change.unique().tolist() == list(SAME_CRYSTAL)
    assert table.uid.tolist() == ["b", "a"] * len(SAME_CRYSTAL)
    assert table.difference.abs().max() < 1e-4
    for transform in SAME_CRYSTAL.values():  # other numbers
        other = transform(records[0], np.random.default_rng(0)).atoms
        assert other != records[0].atoms
    assert not table.ambiguous.any()


def test_an_energy_that_knows_the_order_of_atoms_is_found_out(model):
    class Counting(torch.nn.Module):
        def forward(self, graph):
            output = model(graph)
            first = graph.z[torch.cat([torch.tensor([True]), graph.batch.diff() > 0])]
            return output._replace(eform=output.eform + first)

    records = [DefectRecord("b", defective(), "MoS2", "nobody")]
    table = equal_crystals(Counting(), CONFIG, records, MOS2).set_index("change")
    assert abs(table.difference["atoms reordered"]) > 1
    assert abs(table.difference["rotated"]) < 1e-4


def test_the_energy_is_smooth_where_neighbours_leave(model):
    """With half the step slopes change half as much; at a jump or a kink they would not."""
    before = [p.dtype for p in model.parameters()]
    curves = [
        displacement_curve(model, CONFIG, adatom(), MOS2, np.linspace(1.0, 2.0, n))
        for n in (101, 201)
    ]
    assert [p.dtype for p in model.parameters()] == before
    assert curves[0].neighbours.iloc[0] > curves[0].neighbours.iloc[-1] == 0
    coarse, fine = (curve.slope.diff().abs().max() for curve in curves)
    assert 0 < fine < 0.6 * coarse
    assert curves[0].slope[1:-1].to_numpy() == pytest.approx(curves[1].slope[2:-2:2], abs=0.02)
    assert curves[0].curvature[1:-1].to_numpy() == pytest.approx(
        curves[1].curvature[2:-2:2], abs=0.2
    )


def test_a_defect_without_an_atom_does_not_move(model):
    pristine = DefectRecord("p", host().repeat((3, 3, 1)), "MoS2", "nobody")
    with pytest.raises(DefectkitError, match="no atom of a defect"):
        displacement_curve(model, CONFIG, pristine, MOS2, np.linspace(0, 1, 5))


def test_a_path_in_the_plane_returns_after_a_lattice_vector(model):
    record = adatom()
    path = np.linspace(0.0, np.linalg.norm(host().cell[0]), 5)
    curve = displacement_curve(model, CONFIG, record, MOS2, path, tuple(host().cell[0]))
    assert curve.eform.iloc[-1] == pytest.approx(curve.eform.iloc[0], abs=1e-6)
    assert abs(curve.eform.iloc[2] - curve.eform.iloc[0]) > 1e-6


def test_series_are_of_one_site_and_in_order():
    frame = pd.DataFrame(
        [
            ("MoS2", "Fe", "Mo", "substitution", 0.0),
            ("MoS2", "Ti", "Mo", "substitution", 0.0),
            ("MoS2", "Ti", "Mo", "substitution", 0.0),  # higher than the other
            ("MoS2", "Cr", "S", "substitution", 0.0),
            ("MoS2", "Cu", "Mo", "substitution", 0.01),  # strained
            ("MoS2", "Zn", "Mo", "adsorbate", 0.0),
            ("SnS2", "V", "Sn", "substitution", 0.0),
        ],
        columns=["host", "dopant", "removed", "defecttype", "strain"],
        index=list("abcdefg"),
    )
    rows = pd.DataFrame({"eform": [1.0, 2.0, 3.0, 0, 0, 0, 0], "eform_pred": 0.5}, list("abcdefg"))
    table = dopant_series(rows, frame)
    assert table.index.tolist() == ["b", "a"]
    assert table.place.unique().tolist() == ["Mo of MoS2"]
    assert table.dopant.tolist() == ["Ti", "Fe"]
    with pytest.raises(DefectkitError, match="No host has two substitutions"):
        dopant_series(rows[3:], frame)


def test_moments_are_judged_by_their_size_whatever_the_sign_of_the_labels():
    table = pd.DataFrame({"eform": 1.0, "spin": [0.5, 4.8, 6.0]}, ["small", "usual", "large"])
    for limits in ((-5.0, -1.0), (-5.0, 2.0), (1.0, 5.0)):
        found = flags(table, (0.0, 2.0), limits)["extreme moment"]
        assert found.astype(bool).tolist() == [False, False, True], limits
        assert "at most 5.0 μB" in found["large"]


def test_a_gap_has_words_of_its_own():
    table = pd.DataFrame({"eform": [-0.1, 0.1, 9.0], "spin": np.nan}, ["below", "small", "large"])
    found_of = flags(table, (0.0, 2.0), None, target="gap")
    assert found(found_of, "below") == {"negative gap"}
    assert found(found_of, "small") == set()
    assert found(found_of, "large") == {"extreme energy"}
    assert "cannot be -0.10 eV" in found_of.loc["below", "negative gap"]
    assert (flags(table.loc[["below"]], (0.0, 2.0), None) == "").all(axis=None)
    assert found(flags(table, (0.0, 2.0), (0.0, 1.0)), "small") == {"no number"}
