"""Candidates: all of them, once, by content, and known as `recognise` would know them."""

from dataclasses import replace

import numpy as np
import pytest

from defectkit import DefectkitError
from defectkit.predict.own import training_hosts
from defectkit.screening.candidates import Space
from defectkit.structures.hosts import HOSTS, stretched
from defectkit.structures.recognise import recognise


@pytest.fixture(scope="module")
def hosts():
    return {name: training_hosts("demo")[name] for name in ("MoS2", "Si2", "CrI3")}


def test_every_candidate_comes_once_and_chunks_are_small(hosts):
    space = Space(hosts, ("Cr", "Li", "S"), strains=(0.0, 0.01))
    families = list(space.families())
    keys = [key for family in families for key in family.keys]
    assert len(keys) == len(set(keys)) == len(space)
    chunks = list(space.chunks(7))
    assert [key for c in chunks for family in c.families for key in family.keys] == keys
    assert max(map(len, chunks)) <= 7
    assert len({chunk.name for chunk in chunks}) == len(chunks)
    for chunk in chunks:
        assert len({(family.host, family.strain) for family in chunk.families}) == 1
    names = [candidate.name for family in families for candidate in family.candidates]
    assert len(set(names)) == len(names)
    assert "MoS2_S_sub1" not in names
    assert "MoS2_Cr_sub1_+1.0%" in names


def test_names_by_content_know_no_names(hosts):
    one = list(Space({"MoS2": hosts["MoS2"]}, ("Cr",)).families())
    other = list(Space({"another": hosts["MoS2"]}, ("Cr", "W")).families())
    for family, same in zip(one, other, strict=True):
        assert family.keys == same.keys[: len(family.keys)]
    moved = hosts["MoS2"].copy()
    moved.positions[0] += 1e-3
    changed = list(Space({"MoS2": moved}, ("Cr",)).families())
    assert not {k for f in one for k in f.keys} & {k for f in changed for k in f.keys}


@pytest.mark.parametrize("name", ["MoS2", "Si2", "CrI3"])
@pytest.mark.parametrize("strain", [0.0, 0.02])
def test_the_maker_knows_what_recognise_finds(hosts, name, strain):
    space = Space({name: hosts[name]}, ("H", "Cr", "Cs"), strains=(strain,))
    compared = 0
    for family in space.families():
        for dopant in family.dopants:
            defect = family.defect(dopant)
            known = family.recognition(defect)
            found = recognise(defect.atoms, family.unit)
            if found.ambiguous:
                continue  # where it stands says less than who put it there
            np.testing.assert_array_equal(known.site_kind, found.site_kind)
            np.testing.assert_array_equal(known.original_z, found.original_z)
            np.testing.assert_allclose(known.ideal_positions, found.ideal_positions, atol=1e-6)
            # The gaps of a pair may stand in another order, and in another image of the cell.
            away = known.vacancy_positions[:, None] - found.vacancy_positions
            away = defect.atoms.cell.scaled_positions(away.reshape(-1, 3)).reshape(away.shape)
            near = (np.abs(away - away.round()) < 1e-6).all(axis=2)
            order = near.argmax(axis=1) if near.size else np.zeros(0, int)
            assert near.any(axis=1).all()
            assert len(set(order)) == len(found.vacancy_z)
            np.testing.assert_array_equal(known.vacancy_z, found.vacancy_z[order])
            assert known.defecttype == found.defecttype
            assert sorted(known.removed) == sorted(found.removed)
            np.testing.assert_allclose(known.setting.strain, found.setting.strain, atol=1e-6)
            compared += 1
    assert compared > 0.8 * len(space)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hosts": {}}, "no host"),
        ({"dopants": ("Xx",)}, "no element Xx"),
        ({"dopants": ("Cr", "Cr")}, "Cr stands twice"),
        ({"kinds": ("hole",)}, "no kind of defect hole"),
        ({"sites": ("ads9",)}, "no site in these hosts ads9; choose ads0"),
        ({"strains": (0.5,)}, "strain of 0.5"),
    ],
)
def test_what_cannot_be_made_is_refused(change, words):
    with pytest.raises(DefectkitError, match=words):
        replace(Space({"MoS2": HOSTS["MoS2"].unit_cell()}, ("Cr",)), **change)


def test_atoms_go_with_a_stretched_cell(hosts):
    unit = hosts["MoS2"]
    wide = stretched(unit, 0.02)
    np.testing.assert_allclose(wide.cell.array[:2], 1.02 * unit.cell.array[:2])
    np.testing.assert_allclose(wide.positions[:, :2], 1.02 * unit.positions[:, :2])
    np.testing.assert_allclose(wide.positions[:, 2], unit.positions[:, 2])
