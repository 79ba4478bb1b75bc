import gzip
import io
import shutil
import tarfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from real_rows import some_rows
from typer.testing import CliRunner

from defectkit import DefectkitError
from defectkit.cli import app
from defectkit.data import Dataset, cif_2dmd, load, twodmd
from defectkit.data.cleaning import clean
from defectkit.data.splits import make_split, structure_groups
from defectkit.structures.files import read_structure, write_structure
from defectkit.structures.hosts import HOSTS
from defectkit.structures.recognise import recognise, recognised

pytestmark = pytest.mark.usefixtures("own_cache")
SUBSETS = (
    "low_MoS2",
    "low_WSe2",
    *(f"high_{h}" for h in ("BN", "GaSe", "InSe", "MoS2", "P", "WSe2")),
)
SAMPLED = 30  # rows of each


def write_2dmd(folder: Path, ids=("t1", "t2"), target_ids=("t1", "t2"), defects=None) -> Path:
    """Two defects in the files of 2DMD: a vacancy with a substitution, and a substitution."""
    folder.mkdir()
    unit = HOSTS["MoS2"].unit_cell()
    write_structure(unit, folder / "MoS2.cif")
    one = unit.repeat((4, 4, 1))
    one.symbols[4] = "Se"
    del one[9]
    two = unit.repeat((4, 4, 1))
    two.symbols[0] = "W"
    texts = []
    for atoms in (one, two):
        texts.append(write_structure(atoms, folder / "s.cif").read_text(encoding="utf-8"))
    (folder / "s.cif").unlink()
    pd.DataFrame({"structures": texts}, index=list(ids)).to_csv(folder / "data.csv.gz")
    pd.DataFrame(
        {
            "_id": ["a00001", "b00002"][: len(target_ids)],
            "descriptor_id": target_ids,
            "formation_energy": [3.5, 0.25][: len(target_ids)],
            "energy": -300.0,
            "total_mag": 1.0,
        }
    ).to_csv(folder / "targets.csv.gz", index=False)
    defects = defects or [
        "[{'type': 'vacancy', 'element': 'Mo'}, {'type': 'substitution', 'from': 'S', 'to': 'Se'}]",
        "[{'type': 'substitution', 'from': 'Mo', 'to': 'W'}]",
    ]
    pd.DataFrame(
        {"_id": ["t1", "t2"], "description": ["V9", "S9"], "base": "MoS2", "cell": "[4, 4, 1]"}
    ).assign(defects=defects).to_csv(folder / "descriptors.csv", index=False)
    return folder


def test_rows_become_records(tmp_path):
    dataset = load("2dmd", write_2dmd(tmp_path / "2dmd"))
    one, two = dataset.records
    assert (one.uid, one.dopant, one.removed, one.defecttype) == (
        "a00001",
        "Se",
        ("S", "Mo"),
        "complex",
    )
    assert (two.uid, two.dopant, two.removed, two.defecttype) == (
        "b00002",
        "W",
        ("Mo",),
        "substitution",
    )
    assert (one.eform, one.spin, one.supercell, one.host) == (3.5, 1.0, 441, "MoS2")
    assert one.defect_positions.shape == (2, 3)
    np.testing.assert_array_equal(one.unrelaxed, one.atoms.positions)
    assert dataset.label_source == "DFT-PBE (2DMD)"
    assert dataset.families == {"MoS2": "AB2 (187)"}


def test_files_that_do_not_belong_together(tmp_path):
    with pytest.raises(DefectkitError, match=r"row 2 of data is of type t2.*targets of type t1"):
        load("2dmd", write_2dmd(tmp_path / "swapped", ids=("t2", "t1")))
    with pytest.raises(DefectkitError, match="2 rows and targets 1"):
        load("2dmd", write_2dmd(tmp_path / "short", target_ids=("t1",)))
    with pytest.raises(DefectkitError, match=r"no type t3"):
        load("2dmd", write_2dmd(tmp_path / "odd", ids=("t1", "t3"), target_ids=("t1", "t3")))
    folder = write_2dmd(tmp_path / "lost")
    (folder / "MoS2.cif").unlink()
    with pytest.raises(DefectkitError, match=r"MoS2\.cif"):
        load("2dmd", folder)
    (folder / "targets.csv.gz").unlink()
    with pytest.raises(DefectkitError, match=r"targets\.csv"):
        load("2dmd", folder)


def test_refuses_a_cif_with_symmetry(tmp_path):
    folder = write_2dmd(tmp_path / "2dmd")
    path = folder / "data.csv.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress(text.replace("'x, y, z'", "'-x, y, z'").encode()))
    with pytest.raises(DefectkitError, match=r"row 2 .*symmetry"):
        load("2dmd", folder)


def test_defect_types_are_never_run_as_code(tmp_path):
    marker = tmp_path / "ran"
    evil = [f"__import__('pathlib').Path({str(marker)!r}).touch()"] * 2
    with pytest.raises(DefectkitError, match="no literal"):
        load("2dmd", write_2dmd(tmp_path / "2dmd", defects=evil))
    assert not marker.exists()


def test_real_pilot(pilot):
    frame = pilot.frame
    assert len(frame) == 200
    assert frame.eform["6141d7eaee0a3fd43fb47bdd"] == pytest.approx(7.7269)
    assert set(frame.host) == {"MoS2"}
    assert set(frame.defecttype) == {"complex", "vacancy", "substitution"}
    assert set(frame.dopant) == {"", "Se", "W", "Se,W"}
    assert frame.spin.isna().all()  # the runs were not spin-polarised
    assert frame.gap["6141d7eaee0a3fd43fb47bdd"] > 0


@pytest.fixture(scope="module")
def complete(real_data, tmp_path_factory) -> Path:
    """A folder as that of the complete data, with `SAMPLED` rows of each subset."""
    parent = tmp_path_factory.mktemp("complete")
    return some_rows(real_data, parent, dict.fromkeys(SUBSETS, SAMPLED))


@pytest.fixture(scope="module")
def sampled(complete, own_cache) -> Dataset:
    return load("2dmd", complete)


def test_all_subsets_are_read_from_their_parent(sampled, complete):
    frame = sampled.frame
    assert frame.subset.value_counts().to_dict() == dict.fromkeys(SUBSETS, SAMPLED)
    assert set(frame.host) == set(sampled.hosts) == set(SUBSETS)
    assert not np.allclose(
        sampled.hosts["low_MoS2"].cell.lengths(), sampled.hosts["high_MoS2"].cell.lengths()
    )
    some = load("2dmd", [complete / "high_P", complete / "low_MoS2"])
    assert list(some.frame.index) == [
        *frame.index[frame.subset == "high_P"],
        *frame.index[frame.subset == "low_MoS2"],
    ]
    assert (
        load("2dmd", complete / "high_P").fingerprint
        == sampled.subset(frame.index[frame.subset == "high_P"]).fingerprint
    )


def test_a_subset_alone_is_split_as_among_others(sampled):
    whole = make_split(sampled, "subset", seed=1)
    names = sampled.frame.subset
    for subset in SUBSETS:
        alone = make_split(sampled.subset(names.index[names == subset]), "subset", seed=1)
        for part in ("train", "valid", "test"):
            among = [uid for uid in getattr(whole, part) if names[uid] == subset]
            assert sorted(getattr(alone, part)) == sorted(among)
    shares = names[list(whole.test)].value_counts() / names.value_counts()
    assert shares.between(0.2, 0.25).all()


def test_labels_by_cell_and_by_site(sampled, complete):
    frame = sampled.frame
    for subset in SUBSETS:
        table = pd.read_csv(complete / subset / "targets.csv.gz", index_col="_id")
        rows = frame.loc[table.index]
        np.testing.assert_allclose(rows.eform, table.formation_energy)
        np.testing.assert_allclose(rows.eform_per_site, table.formation_energy_per_site)
        np.testing.assert_allclose(rows.gap, table.homo_lumo_gap_min)
        if subset.endswith(("MoS2", "WSe2")):  # not spin-polarised
            assert rows.spin.isna().all()
        else:
            np.testing.assert_allclose(rows.spin, table.total_mag)


def test_crowded_cells_are_not_cleaned_away(sampled):
    kept = clean(sampled, "strict").dataset
    assert len(kept) == len(sampled)


def test_no_structure_is_there_twice(sampled):
    assert structure_groups(sampled).nunique() == len(sampled)


def test_every_structure_is_read_as_the_general_parser_reads_it(complete):
    for subset in SUBSETS:
        for text in pd.read_csv(complete / subset / "data.csv.gz").structures[::3]:
            quick, general = cif_2dmd._regular_layer(text), cif_2dmd._parsed_layer(text, "")
            np.testing.assert_array_equal(quick.numbers, general.numbers)
            np.testing.assert_array_equal(quick.positions, general.positions)
            np.testing.assert_array_equal(quick.cell.array, general.cell.array)
            assert quick.pbc.tolist() == general.pbc.tolist()


def test_defects_are_those_that_recognise_finds(sampled):
    for record in sampled.records[::2]:
        host = sampled.hosts[record.host]
        assert_equal(recognised(record, host), recognise(record.atoms, host))


def assert_equal(first, second) -> None:
    """Two recognitions, to within rounding."""
    for name in ("site_kind", "original_z", "vacancy_z"):
        one, other = getattr(first, name), getattr(second, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    for name in ("ideal_positions", "vacancy_positions", "rms"):
        one, other = getattr(first, name), getattr(second, name)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
    assert (first.ambiguous, first.reason) == (second.ambiguous, second.reason)
    np.testing.assert_array_equal(first.setting.matrix, second.setting.matrix)
    np.testing.assert_array_equal(first.setting.deformation, second.setting.deformation)


def test_what_is_kept_is_what_was_read(sampled, complete, monkeypatch):
    monkeypatch.setattr(twodmd, "_read_subset", None)
    again = load("2dmd", complete)
    assert again.fingerprint == sampled.fingerprint
    pd.testing.assert_frame_equal(again.frame, sampled.frame)
    for one, other in zip(sampled.records, again.records):
        for name in (f.name for f in fields(one) if f.name not in ("atoms", "unrelaxed")):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        np.testing.assert_array_equal(one.unrelaxed, other.unrelaxed)
        assert one.atoms == other.atoms
        assert set(one.recognitions) == set(other.recognitions)  # digests of structure and host
        (first,), (second,) = one.recognitions.values(), other.recognitions.values()
        assert_equal(first, second)


def test_a_damaged_file_is_made_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEFECTKIT_DATA", str(tmp_path / "data"))
    folder = write_2dmd(tmp_path / "2dmd")
    fingerprint = load("2dmd", folder).fingerprint
    (file,) = (tmp_path / "data" / "structures").iterdir()
    whole = file.read_bytes()
    for damaged in (b"", b"\xff\x00", whole[:-12], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        assert load("2dmd", folder).fingerprint == fingerprint
        assert "read anew" in capsys.readouterr().out
        assert file.read_bytes() == whole
    (folder / "descriptors.csv").write_text((folder / "descriptors.csv").read_text() + "\n")
    load("2dmd", folder)  # other contents, another file
    assert len(list((tmp_path / "data" / "structures").iterdir())) == 2


def test_a_structure_is_trusted_more_than_its_descriptor(tmp_path, capsys):
    wrong = ["[{'type': 'substitution', 'from': 'S', 'to': 'Te'}]"] * 2
    dataset = load("2dmd", write_2dmd(tmp_path / "2dmd", defects=wrong))
    assert [record.dopant for record in dataset.records] == ["Se", "W"]
    said = capsys.readouterr().out
    assert "2 of 2 descriptors" in said
    assert load("2dmd", tmp_path / "2dmd").frame.dopant.tolist() == ["Se", "W"]
    assert capsys.readouterr().out == said  # also when it was kept


def test_moments_of_runs_without_spin_are_unknown(tmp_path):
    folder = write_2dmd(tmp_path / "2dmd")
    table = pd.read_csv(folder / "targets.csv.gz")
    table.assign(total_mag=[0.0, 1.0]).to_csv(folder / "targets.csv.gz", index=False)
    assert load("2dmd", folder).frame.spin.tolist() == [0.0, 1.0]
    table.assign(total_mag=0.0).to_csv(folder / "targets.csv.gz", index=False)
    assert load("2dmd", folder).frame.spin.isna().all()


def test_hosts_of_one_name_must_be_one_host(tmp_path):
    one, two = (write_2dmd(tmp_path / name) for name in ("one", "two"))
    table = pd.read_csv(two / "targets.csv.gz")
    table.assign(_id=["c00003", "d00004"]).to_csv(two / "targets.csv.gz", index=False)
    both = load("2dmd", [one, two])
    assert (len(both), list(both.hosts)) == (4, ["MoS2"])
    assert len(load("2dmd", [one, one])) == 2  # a folder counts once
    unit = read_structure(two / "MoS2.cif")
    unit.set_cell(unit.cell * [1.01, 1.01, 1], scale_atoms=True)
    write_structure(unit, two / "MoS2.cif")
    with pytest.raises(DefectkitError, match="another unit cell of MoS2"):
        load("2dmd", [one, two])


def test_a_folder_without_data(tmp_path):
    with pytest.raises(DefectkitError, match=r"no data\.csv"):
        load("2dmd", tmp_path)
    folder = write_2dmd(tmp_path / "2dmd")
    for name in ("data", "targets"):
        pd.read_csv(folder / f"{name}.csv.gz").iloc[:0].to_csv(folder / f"{name}.csv.gz")
    with pytest.raises(DefectkitError, match="has no row"):
        load("2dmd", folder)


def test_fetch_reads_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFECTKIT_DATA", str(tmp_path))
    folder = write_2dmd(tmp_path / "2dmd")
    result = CliRunner().invoke(app, ["data", "fetch", "2dmd"])
    assert (result.exit_code, result.stdout.split()) == (0, ["2", "rows", str(folder)])


def pack(path: Path, members: list[tuple[str, bytes]], **changes) -> None:
    """A .tar.gz of files; `changes` are of the last member's header."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if name == members[-1][0]:
                for key, value in changes.items():
                    setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))


def write_official(parent: Path, labels: str = "targets") -> Path:
    """The rows of `write_2dmd` in the layout of the official download."""
    own = write_2dmd(parent.parent / "plain")
    folder = parent / "low_density_defects" / "MoS2"
    folder.mkdir(parents=True)
    (parent / "unit_cells").mkdir()
    shutil.move(own / "MoS2.cif", parent / "unit_cells" / "MoS2.cif")
    shutil.copyfile(own / "descriptors.csv", folder / "descriptors.csv")
    texts = pd.read_csv(own / "data.csv.gz").structures
    members = [(f"{uid}.cif", t.encode()) for uid, t in zip(("b00002", "a00001"), texts[::-1])]
    pack(folder / "initial.tar.gz", members)
    table = pd.read_csv(own / "targets.csv.gz")
    # energy - pristine - sum of dn mu: V_Mo + Se_S, and W_Mo
    table["energy"] = [-400 + 11.0 + 4.0 - 3.5 + 3.5, -400 + 11.0 - 13.0 + 0.25]
    table["formation_energy"] = [3.5, 0.25]
    if labels == "defects":
        table = table.drop(columns="formation_energy")
    table.to_csv(folder / f"{labels}.csv.gz", index=False)
    (parent / "elements.csv").write_text(
        "element,chemical_potential\nMo,-11.0\nS,-4.0\nSe,-3.5\nW,-13.0\n"
    )
    (parent / "initial_structures.csv").write_text('base,cell_size,energy\nMoS2,"[4, 4, 1]",-400\n')
    shutil.rmtree(own)
    return folder


@pytest.mark.parametrize("labels", ["targets", "defects"])
def test_the_official_layout_is_read_as_it_is(tmp_path, labels):
    folder = write_official(tmp_path / "official", labels)
    before = sorted(tmp_path.rglob("*"))
    dataset = load("2dmd", tmp_path / "official")
    assert sorted(tmp_path.rglob("*")) == before  # nothing is unpacked
    frame = dataset.frame
    assert frame.removed.to_dict() == {"a00001": "S,Mo", "b00002": "Mo"}
    assert frame.eform.tolist() == pytest.approx([3.5, 0.25])
    assert frame.eform_per_site.tolist() == pytest.approx([1.75, 0.25])
    assert set(frame.host) == set(frame.subset) == {"MoS2"}
    assert load("2dmd", folder).fingerprint == dataset.fingerprint


def test_energies_that_are_not_those_of_the_definition(tmp_path):
    folder = write_official(tmp_path / "official")
    path = tmp_path / "official" / "elements.csv"
    whole = path.read_text()
    path.write_text(whole.replace("-13.0", "-13.1"))
    with pytest.raises(DefectkitError, match=r"row 3: .* 0\.2500 eV, .* 0\.3500 eV"):
        load("2dmd", folder)
    path.unlink()
    assert load("2dmd", folder).frame.eform.tolist() == [3.5, 0.25]
    table = pd.read_csv(folder / "targets.csv.gz").drop(columns="formation_energy")
    table.to_csv(folder / "targets.csv.gz", index=False)
    with pytest.raises(DefectkitError, match=r"no formation_energy, and elements\.csv"):
        load("2dmd", folder)


def test_archives_are_checked_before_they_are_read(tmp_path, monkeypatch):
    folder = write_official(tmp_path / "official")
    path = folder / "initial.tar.gz"
    whole = path.read_bytes()
    good = [(f"{uid}.cif", t.encode()) for uid, t in twodmd.read_archive(path).items()]
    for name in ("/etc/a.cif", "../a.cif", "x/../../a.cif", "C:/a.cif", "..\\a.cif"):
        pack(path, [*good, (name, b"")])
        with pytest.raises(DefectkitError, match="no plain file inside"):
            load("2dmd", folder)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        pack(path, [*good, ("c.cif", b"")], type=kind, linkname="a00001.cif")
        with pytest.raises(DefectkitError, match="no plain file inside"):
            load("2dmd", folder)
    pack(path, good[:1])
    with pytest.raises(DefectkitError, match=r"no a00001\.cif, and lacks 1 of the 2"):
        load("2dmd", folder)
    for damaged in (b"", whole[:-20], whole[:200], gzip.compress(b"no archive" * 100)):
        path.write_bytes(damaged)
        with pytest.raises(DefectkitError):
            load("2dmd", folder)
    pack(path, [*good, ("notes.txt", b"\xff"), ("._a00001.cif", b"")])
    assert len(load("2dmd", folder)) == 2
    monkeypatch.setattr(twodmd, "MAX_ARCHIVE", 1000)
    with pytest.raises(DefectkitError, match="the most that is read"):
        twodmd.read_archive(path)
