import gzip
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.db import connect
from imp2d_fixture import GOOD, TRAPS, write_real_rows

from defectkit import DefectkitError
from defectkit.data import Dataset, load
from defectkit.records import COLUMNS, DefectRecord
from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.files import write_structure
from defectkit.structures.hosts import HOSTS
from defectkit.structures.recognise import recognise


@pytest.fixture(scope="module")
def imp2d(trap_database) -> Dataset:
    return load("imp2d", trap_database)


@pytest.fixture
def demo_database(tmp_path) -> Path:
    """One vacancy and one adatom in the schema of the demo database."""
    path = tmp_path / "demo2d.db"
    unit = HOSTS["MoS2"].unit_cell()
    sites = {site.name: site for site in find_sites(unit)}
    with connect(path, type="db", use_lock_file=False) as database:
        database.metadata = {
            "label_source": "CHGNet-0.3.0",
            "hosts": {
                "MoS2": {
                    "family": "MoS2 (2H)",
                    "symbols": list(unit.symbols),
                    "positions": unit.positions.tolist(),
                    "cell": unit.cell.array.tolist(),
                }
            },
        }
        for dopant, site in (("X", "div0"), ("Li", "ads0")):
            defect = make_defect(unit, (3, 3, 1), sites[site], dopant)
            pairs = {
                "name": f"MoS2_{dopant}_{site}", "host": "MoS2", "dopant": dopant, "site": site,
                "eform": 1.5, "spin": 0.25, "converged": True, "supercell": 331, "strain": 0.0,
                "removed": ",".join(defect.removed), "max_force": 0.04,
                "label_source": "CHGNet-0.3.0",
            }  # fmt: skip
            data = {
                "unrelaxed_positions": defect.atoms.positions.astype(np.float32),
                "site_magmoms": np.full(len(defect.atoms), 0.5, np.float32),
                "defect_positions": defect.positions.astype(np.float32),
            }
            database.write(defect.atoms, key_value_pairs=pairs, data=data)
    return path


def test_demo_rows_become_records(demo_database):
    dataset = load("demo", demo_database)
    vacancy, adatom = dataset.records
    assert (vacancy.uid, vacancy.dopant, adatom.dopant) == ("MoS2_X_div0", "", "Li")
    assert adatom.removed == ()
    assert (adatom.eform, adatom.spin, adatom.max_force) == (1.5, 0.25, 0.04)
    assert adatom.converged is True
    assert vacancy.defect_positions.shape == (2, 3)
    assert adatom.unrelaxed.shape == (28, 3)
    np.testing.assert_allclose(adatom.site_magmoms, 0.5)
    np.testing.assert_allclose(
        adatom.unrelaxed_atoms().positions, adatom.atoms.positions, atol=1e-5
    )
    assert dataset.label_source == adatom.label_source == "CHGNet-0.3.0"
    assert dataset.families == {"MoS2": "MoS2 (2H)"}
    found = recognise(vacancy.atoms, dataset.hosts["MoS2"])
    assert found.defecttype == "vacancy"
    assert sorted(found.removed) == sorted(vacancy.removed)


def test_demo_is_found_in_the_data_folder(demo_database, monkeypatch):
    monkeypatch.setenv("DEFECTKIT_DATA", str(demo_database.parent))
    assert len(load()) == 2


def test_loading_is_fast_enough_for_8000_rows(demo_database, tmp_path):
    row = connect(demo_database, type="db").get(2)
    with connect(demo_database, type="db", use_lock_file=False) as database:
        for number in range(400):
            pairs = row.key_value_pairs | {"name": f"MoS2_Li_copy{number}"}
            database.write(row.toatoms(), key_value_pairs=pairs, data=row.data)
    start = time.perf_counter()
    assert len(load("demo", demo_database).frame) == 402
    assert (time.perf_counter() - start) / 402 < 3e-3  # several times what it takes


def test_imp2d_rows_become_records(imp2d):
    assert set(imp2d.frame.index) == {*GOOD, *TRAPS}
    record = imp2d["Se2Zr_Cr_int2"]
    assert (record.host, record.dopant, record.supercell) == ("ZrSe2", "Cr", 331)
    assert record.label_source == imp2d.label_source == "DFT-PBE (Imp2d)"
    assert record.host_spacegroup == 164
    assert imp2d["MoS2_Na_ads0"].spin == -2.0
    assert imp2d["MoS2_Fe_ads0"].converged
    assert np.isnan(imp2d["MoS2_V_ads0"].eform)
    assert np.isnan(imp2d["MoS2_Re_ads0"].eform)
    assert record.unrelaxed is None
    with pytest.raises(DefectkitError, match="no unrelaxed positions"):
        record.unrelaxed_atoms()
    for record in imp2d.records:
        assert record.atoms.pbc.tolist() == [True, True, False]  # the file says (1, 1, 1)


def test_imp2d_hosts_come_from_foreign_dopants(imp2d):
    assert set(imp2d.hosts) == {"MoS2", "MoTe2", "ZrSe2", "Ti2CO2"}
    assert imp2d.hosts["MoTe2"].symbols.formula.count() == {"Mo": 9, "Te": 18}
    assert imp2d.families["MoS2"] == "AB2 (187)"
    assert imp2d.families["MoS2"] == imp2d.families["MoTe2"] != imp2d.families["ZrSe2"]


def test_imp2d_defects_are_recognised_wherever_the_dopant_stands(imp2d):
    places = set()
    for uid in GOOD:
        record = imp2d[uid]
        found = recognise(record.atoms, imp2d.hosts[record.host])
        assert found.defecttype == record.defecttype, uid
        (index,) = found.defect_indices
        assert record.atoms.symbols[index] == record.dopant, uid
        places.add(int(index))
    assert len(places) > 3  # no fixed index


def test_real_imp2d_rows(real_data, tmp_path):
    path = write_real_rows(tmp_path / "imp2d.db", real_data / "imp2d_rows.json")
    dataset = load("imp2d", path)
    assert len(dataset) == 4
    record = dataset["Sn2_Bi_ads2"]
    assert (record.host, record.spin, record.site) == ("Sn2", -2.0, "ads2")
    assert dataset.frame.loc["Se2Zr_Cr_int2", "eform"] == pytest.approx(14.579034835)
    for record in dataset.records:
        found = recognise(record.atoms, dataset.hosts[record.host])
        assert found.defecttype == record.defecttype
        assert record.atoms.symbols[found.defect_indices[0]] == record.dopant
        assert not found.ambiguous


def test_rows_of_one_name_get_ids_of_their_own(trap_database, tmp_path):
    path = tmp_path / "imp2d.db"
    shutil.copy(trap_database, path)
    with connect(path, type="db", use_lock_file=False) as database:
        row = database.get(1)
        database.write(row.toatoms(), key_value_pairs=row.key_value_pairs)
    uids = load("imp2d", path).frame.index
    assert uids.is_unique
    assert f"{GOOD[0]}#1" in uids


def test_files_that_are_no_database(tmp_path):
    with pytest.raises(DefectkitError, match="no such database"):
        load("imp2d", tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("no database at all, but long enough to be read as one")
    with pytest.raises(DefectkitError, match="not an ASE database"):
        load("imp2d", tmp_path / "text.db")
    with connect(tmp_path / "other.db", type="db", use_lock_file=False) as database:
        database.write(Atoms("H"), key_value_pairs={"gap": 1.0})
    with pytest.raises(DefectkitError, match="row 1: the key 'name'"):
        load("imp2d", tmp_path / "other.db")
    with pytest.raises(DefectkitError, match="not a demo database"):
        load("demo", tmp_path / "other.db")
    with pytest.raises(DefectkitError, match="demo, imp2d, 2dmd"):
        load("c2db")


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


def test_2dmd_rows_become_records(tmp_path):
    dataset = load("2dmd", write_2dmd(tmp_path / "2dmd"))
    one, two = dataset.records
    assert (one.uid, one.dopant, one.removed, one.defecttype) == (
        "a00001", "Se", ("S", "Mo"), "complex",
    )  # fmt: skip
    assert (two.uid, two.dopant, two.removed, two.defecttype) == (
        "b00002", "W", ("Mo",), "substitution",
    )  # fmt: skip
    assert (one.eform, one.spin, one.supercell, one.host) == (3.5, 1.0, 441, "MoS2")
    assert one.defect_positions.shape == (2, 3)
    np.testing.assert_array_equal(one.unrelaxed, one.atoms.positions)
    assert dataset.label_source == "DFT-PBE (2DMD)"
    assert dataset.families == {"MoS2": "AB2 (187)"}


def test_2dmd_files_that_do_not_belong_together(tmp_path):
    with pytest.raises(DefectkitError, match=r"row 1 of data is of type t2.*targets of type t1"):
        load("2dmd", write_2dmd(tmp_path / "swapped", ids=("t2", "t1")))
    with pytest.raises(DefectkitError, match="2 rows and targets 1"):
        load("2dmd", write_2dmd(tmp_path / "short", target_ids=("t1",)))
    with pytest.raises(DefectkitError, match=r"no type t3"):
        load("2dmd", write_2dmd(tmp_path / "odd", ids=("t1", "t3"), target_ids=("t1", "t3")))
    swapped = ["[{'type': 'substitution', 'from': 'S', 'to': 'Se'}]"] * 2
    with pytest.raises(DefectkitError, match=r"row 1 \(a00001\).*do not belong together"):
        load("2dmd", write_2dmd(tmp_path / "wrong", defects=swapped))
    folder = write_2dmd(tmp_path / "lost")
    (folder / "MoS2.cif").unlink()
    with pytest.raises(DefectkitError, match=r"MoS2\.cif"):
        load("2dmd", folder)
    (folder / "targets.csv.gz").unlink()
    with pytest.raises(DefectkitError, match=r"targets\.csv"):
        load("2dmd", folder)


def test_2dmd_refuses_a_cif_with_symmetry(tmp_path):
    folder = write_2dmd(tmp_path / "2dmd")
    path = folder / "data.csv.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress(text.replace("'x, y, z'", "'-x, y, z'").encode()))
    with pytest.raises(DefectkitError, match=r"row 1 .*symmetry"):
        load("2dmd", folder)


def test_2dmd_defect_types_are_never_run_as_code(tmp_path):
    marker = tmp_path / "ran"
    evil = [f"__import__('pathlib').Path({str(marker)!r}).touch()"] * 2
    with pytest.raises(DefectkitError, match="no literal"):
        load("2dmd", write_2dmd(tmp_path / "2dmd", defects=evil))
    assert not marker.exists()


def test_real_2dmd_pilot(pilot):
    frame = pilot.frame
    assert len(frame) == 200
    assert frame.eform["6141d7eaee0a3fd43fb47bdd"] == pytest.approx(7.7269)
    assert set(frame.host) == {"MoS2"}
    assert set(frame.defecttype) == {"complex", "vacancy", "substitution"}
    assert set(frame.dopant) == {"", "Se", "W", "Se,W"}


def write_folder(folder: Path) -> Path:
    (folder / "hosts").mkdir(parents=True)
    unit = HOSTS["MoS2"].unit_cell()
    write_structure(unit, folder / "hosts" / "MoS2.cif")
    vacancy = unit.repeat((3, 3, 1))
    del vacancy[4]
    adatom = unit.repeat((3, 3, 1)) + Atoms("Li", [[0, 0, unit.positions[:, 2].max() + 2]])
    write_structure(vacancy, folder / "one.vasp")
    write_structure(adatom, folder / "two.xyz")
    (folder / "targets.csv").write_text(
        "file,eform,spin,host,dopant,note\none.vasp,2.5,0.5,MoS2,,mine\ntwo.xyz,-1,,MoS2,Li,\n"
    )
    return folder


def test_folder_of_files(tmp_path):
    dataset = load(write_folder(tmp_path / "mine"))
    one, two = dataset.records
    assert (one.uid, one.eform, one.spin, one.dopant) == ("one.vasp", 2.5, 0.5, "")
    assert (one.removed, one.defecttype) == (("S",), "vacancy")
    assert (two.dopant, two.defecttype, two.removed) == ("Li", "adsorbate", ())
    assert np.isnan(two.spin)
    assert dataset.name == "mine"
    assert set(dataset.hosts) == {"MoS2"}


def test_folder_faults(tmp_path):
    folder = write_folder(tmp_path / "mine")
    table = folder / "targets.csv"
    table.write_text("file,energy\none.vasp,2\n")
    with pytest.raises(DefectkitError, match="no column 'eform'"):
        load(folder)
    table.write_text("file,eform\nthree.cif,2\n")
    with pytest.raises(DefectkitError, match=r"three\.cif: there is no such file"):
        load(folder)
    table.write_text("file,eform\none.vasp,2\none.vasp,3\n")
    with pytest.raises(DefectkitError, match=r"one\.vasp stands twice"):
        load(folder)
    table.rename(folder / "a.csv")
    (folder / "b.csv").write_text("file,eform\n")
    with pytest.raises(DefectkitError, match="2 CSV files"):
        load(folder)


def record(uid: str, shift: float = 0.0, eform: float = 1.0) -> DefectRecord:
    atoms = Atoms("H", positions=[[shift, 0, 0]], cell=[3, 3, 20], pbc=(1, 1, 0))
    return DefectRecord(uid=uid, atoms=atoms, host="H", label_source="test", eform=eform)


def test_fingerprint_sees_ids_labels_and_positions_not_order():
    def fingerprint(*records) -> str:
        return Dataset("test", "test", list(records)).fingerprint

    base = fingerprint(record("a"), record("b"))
    assert fingerprint(record("b"), record("a")) == base
    assert fingerprint(record("a"), record("c")) != base
    assert fingerprint(record("a"), record("b", eform=1.0 + 1e-9)) != base
    assert fingerprint(record("a"), record("b", shift=1e-4)) != base
    assert fingerprint(record("a")) != base


def test_dataset_by_id_and_subset():
    dataset = Dataset("test", "test", [record("a"), record("b"), record("c")])
    assert dataset["b"].uid == "b"
    assert dataset.subset(["c", "a"]).frame.index.tolist() == ["c", "a"]
    assert list(dataset.frame.columns) == [name for name in COLUMNS if name != "uid"]
    assert len(dataset.subset([]).frame) == 0
    with pytest.raises(DefectkitError, match="no row with the id d"):
        dataset.subset(["d"])
    with pytest.raises(DefectkitError, match="a stands twice"):
        Dataset("test", "test", [record("a"), record("a")])


def test_fingerprint_survives_a_second_reading(trap_database):
    assert load("imp2d", trap_database).fingerprint == load("imp2d", trap_database).fingerprint


def test_metadata_is_plain_json(demo_database):
    assert json.dumps(connect(demo_database, type="db").metadata)
