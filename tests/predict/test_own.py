"""Structures of one's own: what is read, which host is found, and what the shipped networks say."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import graphene, mx2
from ase.io import write
from pymatgen.io.ase import AseAtomsAdaptor
from typer.testing import CliRunner

from defectkit import DefectkitError
from defectkit.cli import app
from defectkit.predict.answer import answer, sentences, shipped_predictor
from defectkit.predict.own import host_cell, read_own, training_hosts
from defectkit.structures.defects import defects_of
from defectkit.structures.hosts import HOSTS, hosts_2dmd

KNOWN = {name: host.unit_cell() for name, host in HOSTS.items()}


def vacancy(host: Atoms, symbol: str, size: int = 4) -> Atoms:
    atoms = host.repeat((size, size, 1))
    del atoms[[int(np.flatnonzero(atoms.symbols == symbol)[0])]]
    return atoms


@pytest.fixture
def missing_sulfur() -> Atoms:
    return vacancy(KNOWN["MoS2"], "S")


def read(given, **how):
    (one,) = read_own(given, KNOWN, **how)
    return one


def test_a_host_is_found_among_those_learned_from(missing_sulfur):
    one = read(missing_sulfur)
    assert (one.record.host, one.defect, one.relaxed) == ("MoS2", "S vacancy", False)
    assert one.record.removed == ("S",)
    assert "host: MoS2" in one.assumed
    assert any(text.startswith("not relaxed: ") for text in one.assumed)


def test_nothing_is_assumed_of_what_is_said(missing_sulfur):
    one = read(missing_sulfur, host="2h-mos2", relaxed=True)
    assert one.relaxed
    assert one.assumed == ()


def test_atoms_off_their_sites_are_relaxed(missing_sulfur):
    missing_sulfur.rattle(0.03, seed=0)
    assert read(missing_sulfur).relaxed


@pytest.mark.parametrize(
    ("host", "size", "defect"),
    [
        (graphene(a=2.46, vacuum=8), 6, "C vacancy"),
        (mx2("MoTe2", "1T", a=3.5, thickness=3.6, vacuum=8), 4, "Te vacancy"),
        (KNOWN["P4"], 3, "P vacancy"),
    ],
)
def test_an_unknown_host_is_taken_from_its_own_lattice(host, size, defect):
    atoms = vacancy(host, defect.split()[0], size)
    atoms.rattle(0.02, seed=1)
    (one,) = read_own(atoms, {})
    assert one.defect == defect
    assert "own lattice" in one.record.host
    assert len(one.host) == len(host)


def test_1t_is_not_2h():
    """Another phase of a known host is found in its own lattice, and its name is not enough."""
    one = read(vacancy(mx2("MoS2", "1T", a=3.18, thickness=3.13, vacuum=8), "Mo"))
    assert one.record.host != "MoS2"
    with pytest.raises(DefectkitError, match="MoS2 here is MoS2 \\(2H\\), and 1T-MoS2 is not"):
        host_cell("1T-MoS2")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("hBN", "BN"),
        ("h-BN", "BN"),
        ("boron nitride", "BN"),
        ("mos2", "MoS2"),
        ("2H-MoS2", "MoS2"),
        ("MoS2_1H", "MoS2"),
        ("1T-SnS2", "SnS2"),
        ("phosphorene", "P"),
        ("Si", "Si2"),
        ("GeH", "Ge2H2"),
        ("monolayer WSe2", "WSe2"),
    ],
)
def test_everyday_names(name, key):
    assert (
        host_cell(name).symbols.formula.reduce()
        == (hosts_2dmd() | KNOWN)[key].symbols.formula.reduce()
    )


def test_an_unknown_host_is_one_sentence():
    with pytest.raises(DefectkitError, match="no host 'xyzzy' here; give its pristine cell"):
        host_cell("xyzzy")


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_vacuum_may_lie_along_any_vector(missing_sulfur, order):
    atoms = missing_sulfur.copy()
    atoms.pbc = True
    atoms.positions[:, 2] += 9.0  # across the boundary
    atoms.wrap()
    atoms.set_cell(atoms.cell.array[order])
    one = read(atoms)
    assert one.defect == "S vacancy", one.fault
    assert not one.relaxed


@pytest.mark.parametrize("angle", [30, 60, 180])
def test_turned_structures_have_the_same_defect(missing_sulfur, angle):
    missing_sulfur.rotate(angle, "z", rotate_cell=True)
    assert read(missing_sulfur).defect == "S vacancy"
    missing_sulfur.rotate(180, "x", rotate_cell=True)
    assert read(missing_sulfur).defect == "S vacancy"


def test_ase_pymatgen_files_and_folders_are_read_alike(missing_sulfur, tmp_path):
    write(tmp_path / "a.cif", missing_sulfur)
    write(tmp_path / "POSCAR", missing_sulfur, format="vasp")
    write(tmp_path / "b.extxyz", missing_sulfur)
    write(tmp_path / "c.db", missing_sulfur)
    structure = AseAtomsAdaptor.get_structure(missing_sulfur)
    found = read_own([tmp_path, missing_sulfur, structure], KNOWN)
    assert [one.defect for one in found] == ["S vacancy"] * 6, [one.fault for one in found]
    assert [one.record.uid for one in found] == [
        "POSCAR",
        "a.cif",
        "b.extxyz",
        "c.db, row 1",
        "structure 2",
        "structure 3",
    ]


def test_files_of_one_name_are_told_apart(missing_sulfur, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "POSCAR", missing_sulfur, format="vasp")
    found = read_own(tmp_path, KNOWN)
    assert [one.record.uid for one in found] == ["POSCAR", "POSCAR (2)"]


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (Atoms("H2O", [[0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]]), "no cell with a volume"),
        (Atoms("Si2", [[0, 0, 0], [1.36] * 3], cell=3.87 * np.eye(3), pbc=True), "no layer"),
        (KNOWN["MoS2"].repeat((4, 4, 1)), "pristine host MoS2"),
        (KNOWN["MoS2"].repeat((27, 27, 1)), "at most 2,000"),
        (Atoms("HXe", [[0, 0, 5], [3, 3, 5]], cell=[9, 9, 15], pbc=True), "no lattice"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_and_the_others_are_predicted(
    atoms, words, missing_sulfur
):
    bad, good = read_own([atoms, missing_sulfur], KNOWN)
    assert words in bad.fault
    assert good.defect == "S vacancy"


def test_two_layers_are_a_host_of_their_own(missing_sulfur):
    upper = KNOWN["MoS2"].repeat((4, 4, 1))
    upper.positions[:, 2] += 6.2
    both = missing_sulfur + upper
    both.cell[2, 2] += 8
    one = read(both)
    assert (one.defect, one.record.host) == ("S vacancy", "MoS2 (from its own lattice)")
    assert len(one.host) == 6
    assert "no point defect" in read(both, host="MoS2").fault


def test_little_vacuum_and_a_turned_over_layer_change_nothing(missing_sulfur):
    thin = missing_sulfur.copy()
    thin.cell[2, 2] = 3.13 + 12.0
    thin.pbc = True
    assert read(thin).defect == "S vacancy"
    over = missing_sulfur.copy()
    over.positions[:, 2] *= -1
    over.pbc = True
    assert read(over).defect == "S vacancy"


def test_nothing_that_is_given_ends_the_batch(missing_sulfur, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.db").write_text("no database")
    half = AseAtomsAdaptor.get_structure(missing_sulfur)
    half.replace(0, {"Mo": 0.5, "W": 0.5})
    wrong = [tmp_path / "empty", tmp_path / "no.db", tmp_path / "none.cif", 7, half]
    *faults, good = read_own([*wrong, missing_sulfur], KNOWN)
    words = ["holds no CIF", "no.db", "no such file", "A int was given", "partly occupied"]
    for one, word in zip(faults, words, strict=True):
        assert word in one.fault
    assert good.defect == "S vacancy"


def test_a_given_host_is_known_by_its_crystal(missing_sulfur, tmp_path):
    write(tmp_path / "mine.cif", KNOWN["MoS2"].repeat((2, 2, 1)))
    assert read(missing_sulfur, host=tmp_path / "mine.cif").record.host == "MoS2"
    other = mx2("MoS2", "1T", a=3.18, thickness=3.13, vacuum=8)
    one = read(vacancy(other, "Mo"), host=other)
    assert one.record.host == "MoS2 (as given)"


def test_networks_are_asked_about_what_they_know(missing_sulfur):
    relaxed = missing_sulfur.copy()
    relaxed.rattle(0.03, seed=0)
    added = KNOWN["MoS2"].repeat((4, 4, 1))
    added += Atoms("Cr", [added.positions[added.positions[:, 2].argmax()] + [0, 0, 2.2]])
    strange = vacancy(graphene(a=2.46, vacuum=8), "C", 6)
    table = answer([missing_sulfur, relaxed, added, strange, Atoms("H", cell=np.eye(3))])
    asked = table.groupby(level=0).model.apply(list)
    assert asked["structure 1"] == ["hybrid-unrelaxed", "sites"]
    assert asked["structure 2"] == ["hybrid"]
    assert asked["structure 3"] == ["hybrid-unrelaxed"]
    assert table.defect["structure 3"] == "Cr adsorbate"
    assert set(table.label_source) == {"CHGNet-0.3.0", "DFT-PBE (2DMD)"}
    assert table.verdict["structure 4"] in ("unlike", "both")
    assert "none of the crystals learned from" in table.sentence["structure 4"]
    assert table.verdict["structure 5"] == "unread"
    assert table.eform[table.verdict != "unread"].notna().all()
    words = "\n".join(sentences(table))
    assert "structure 1: S vacancy in MoS2, unrelaxed" in words
    assert "DFT-PBE (2DMD): formation energy" in words


def test_positions_that_were_not_learned_from_are_never_inside(missing_sulfur):
    hybrid = shipped_predictor("hybrid")
    table = hybrid.predict(missing_sulfur, relaxed=False)
    assert table.verdict.item() != "inside"
    assert "it is unrelaxed, and relaxed ones were learned from" in table.sentence.item()
    assert hybrid.predict(missing_sulfur, relaxed=True).verdict.item() == "inside"


def test_the_command_predicts_writes_a_table_and_survives_a_bad_file(missing_sulfur, tmp_path):
    write(tmp_path / "good.cif", missing_sulfur)
    (tmp_path / "bad.cif").write_text("nothing")
    files = [str(tmp_path / name) for name in ("bad.cif", "good.cif")]
    for suffix in (".csv", ".json"):
        target = tmp_path / f"table{suffix}"
        done = CliRunner().invoke(app, ["predict", *files, "--unrelaxed", "-o", str(target)])
        assert done.exit_code == 0, done.output
        assert "good.cif: S vacancy in MoS2, unrelaxed" in done.output
        assert "bad.cif: " in done.output
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [row["uid"] for row in rows] == ["bad.cif", "good.cif", "good.cif"]
    assert rows[1]["eform"] == pytest.approx(pd.read_csv(tmp_path / "table.csv").eform[1])
    wrong = CliRunner().invoke(app, ["predict", files[1], "-o", str(tmp_path / "table.txt")])
    assert isinstance(wrong.exception, DefectkitError)


def test_maps_are_drawn_of_what_can_be_read(missing_sulfur, tmp_path):
    write(tmp_path / "good one.cif", missing_sulfur)
    (tmp_path / "bad.cif").write_text("nothing")
    files = [str(tmp_path / name) for name in ("bad.cif", "good one.cif")]
    done = CliRunner().invoke(app, ["predict", *files, "--map", str(tmp_path / "maps")])
    assert done.exit_code == 0, done.output
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == ["good_one.cif.png", "good_one.cif.svg"]
    words = (tmp_path / "maps" / names[1]).read_text()
    assert "change without the atom (eV)" in words


def test_one_predictor_serves_many_threads():
    made = [
        defect.atoms
        for name in ("MoS2", "BN")
        for defect in defects_of(host_cell(name), add="Fe").values()
    ]
    hybrid = shipped_predictor("hybrid")
    alone = [hybrid.predict(atoms, relaxed=True) for atoms in made]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda atoms: hybrid.predict(atoms, relaxed=True), made))
    for one, other in zip(alone, together, strict=True):
        pd.testing.assert_frame_equal(one, other, atol=1e-4)


def test_structures_may_have_names(missing_sulfur):
    own = read_own({"mine": missing_sulfur, "<b>": 5}, KNOWN)
    assert [one.record.uid for one in own] == ["mine", "<b>"]
    assert own[0].defect == "S vacancy"
    assert "A int was given" in own[1].fault


def test_no_moment_is_told_where_no_label_had_one(missing_sulfur):
    table = answer(missing_sulfur, relaxed=False).set_index("model")
    assert np.isnan(table.spin["sites"])
    assert table.spin.notna()["hybrid-unrelaxed"]
    assert "DFT-PBE (2DMD): formation energy" in "".join(sentences(answer(missing_sulfur)))


def test_a_predictor_of_ones_own_can_be_named(missing_sulfur, tmp_path):
    from defectkit.training.pretrained import CHECKPOINTS

    write(tmp_path / "a.cif", missing_sulfur)
    file = str(CHECKPOINTS / "sites.safetensors")
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "a.cif"), "--predictor", file])
    assert done.exit_code == 0, done.output
    assert "CHGNet" not in done.output


def test_a_defect_in_every_real_host_is_read(real_data):
    """Hosts of DFT, most of them none of the demo's, each with one atom missing."""
    folder = real_data / "imp2d_hosts"
    if not folder.is_dir():
        pytest.skip("the real hosts are not there")
    hosts = sorted(folder.glob("*.vasp"))
    assert len(hosts) == 20
    for path in hosts:
        host = host_cell(path)
        size = max(3, int(np.ceil(9 / host.cell.lengths()[:2].min())))
        (one,) = read_own(vacancy(host, host.symbols[0], size), training_hosts("demo"))
        assert one.defect == f"{host.symbols[0]} vacancy", (path.name, one.fault, one.defect)
