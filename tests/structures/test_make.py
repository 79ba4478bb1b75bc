"""`defectkit make`: defects from a pristine host, on all distinct sites or one."""

import numpy as np
import pytest
from typer.testing import CliRunner

from defectkit import DefectkitError
from defectkit.cli import app
from defectkit.structures.defects import defects_of, find_sites, place_of
from defectkit.structures.files import read_structure
from defectkit.structures.hosts import HOSTS, hosts_2dmd, shortest_translation
from defectkit.structures.recognise import recognise

MOS2 = HOSTS["MoS2"].unit_cell()


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"vacancies": ["S"]}, ("vacancy", ("S",))),
        ({"vacancies": ["S", "Mo"]}, ("vacancy", ("Mo", "S"))),
        ({"substitute": {"Mo": "W"}}, ("substitution", ("Mo",))),
        ({"vacancies": ["S"], "substitute": {"Mo": "W"}}, ("complex", ("Mo", "S"))),
        ({"add": "Cr", "place": "hollow"}, ("adsorbate", ())),
        ({"add": "Li", "place": "inside"}, ("interstitial", ())),
    ],
)
def test_what_is_made_is_recognised(wish, expected):
    made = defects_of(MOS2, **wish)
    assert made
    for defect in made.values():
        found = recognise(defect.atoms, MOS2)
        assert (found.defecttype, tuple(sorted(found.removed))) == expected
        assert shortest_translation(defect.atoms.cell.array) >= 9.0


def test_a_defect_is_as_far_from_its_image_as_asked():
    (defect,) = defects_of(MOS2, ["Mo"], least=15.0).values()
    apart = shortest_translation(defect.atoms.cell.array)
    assert 15.0 <= apart < 15.0 + MOS2.cell.lengths()[0]
    with pytest.raises(DefectkitError, match="No cell of up to"):
        defects_of(MOS2, ["Mo"], least=1000.0)


def test_places_of_added_atoms():
    places = [place_of(MOS2, site) for site in find_sites(MOS2) if site.side == 1]
    assert set(places) == {"ontop", "bridge", "hollow"}


@pytest.mark.parametrize("host", ["BN", "P"])
def test_flat_and_puckered_sheets_have_sites(host):
    unit = hosts_2dmd()[host]
    assert {site.kind for site in find_sites(unit)} >= {"adsorbate", "substitution", "vacancy"}
    for site in find_sites(unit):
        if site.kind == "interstitial":
            z = unit.positions[:, 2]
            assert z.min() - 1e-3 <= site.point[2] <= z.max() + 1e-3


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({}, "Ask for one defect"),
        ({"vacancies": ["S"], "add": "Cr"}, "Ask for one defect"),
        ({"vacancies": ["S", "S", "S"]}, "Ask for one defect"),
        ({"vacancies": ["X"]}, "no X in MoS2"),
        ({"substitute": {"W": "Mo"}}, "no W in MoS2"),
        ({"substitute": {"Mo": "Wx"}}, "no element Wx"),
        ({"add": "Cr", "place": "under"}, "no such site under"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(wish, words):
    with pytest.raises(DefectkitError, match=words):
        defects_of(MOS2, **wish)


def test_the_command_writes_one_file_or_a_folder(tmp_path):
    def run(*words: str):
        return CliRunner().invoke(app, ["make", *words])

    one = tmp_path / "vacancy.cif"
    assert run("hBN", "--vacancy", "B", "-o", str(one)).exit_code == 0
    counts = np.unique(read_structure(one).numbers, return_counts=True)[1]
    assert counts[1] - counts[0] == 1
    done = run("2H-MoS2", "--add", "Cr", "-o", str(tmp_path / "all"))
    assert done.exit_code == 0, done.output
    files = sorted((tmp_path / "all").iterdir())
    assert len(files) == done.output.count("CrMo9S18, 28 atoms") > 3
    several = run("MoS2", "--add", "Cr", "-o", str(tmp_path / "one.cif"))
    assert "choose one" in str(several.exception)
    assert not (tmp_path / "one.cif").exists()
    wrong = run("MoS2", "--substitute", "Mo")
    assert "Mo=W" in str(wrong.exception)
