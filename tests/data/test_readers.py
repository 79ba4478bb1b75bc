import json
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from imp2d_fixture import GOOD, TRAPS, write_real_rows

from defectkit import DefectkitError
from defectkit.data import Dataset, load
from defectkit.data.cleaning import clean
from defectkit.data.splits import Split
from defectkit.predict.domain import composition_vectors
from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.files import write_structure
from defectkit.structures.hosts import HOSTS
from defectkit.structures.recognise import recognise
from defectkit.structures.record import COLUMNS, DefectRecord
from defectkit.training.config import ModelConfig, RunConfig
from defectkit.training.prepared import Prepared
from defectkit.training.train import train


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
                "name": f"MoS2_{dopant}_{site}",
                "host": "MoS2",
                "dopant": dopant,
                "site": site,
                "eform": 1.5,
                "spin": 0.25,
                "converged": True,
                "supercell": 331,
                "strain": 0.0,
                "removed": ",".join(defect.removed),
                "max_force": 0.04,
                "label_source": "CHGNet-0.3.0",
            }
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
    start = time.process_time()
    assert len(load("demo", demo_database).frame) == 402
    assert (time.process_time() - start) / 402 < 3e-3  # several times what it takes


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
    assert set(imp2d.hosts) == {"MoS2", "MoTe2", "WTe2", "ZrSe2", "Ti2CO2"}
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
    table.write_text("structure,eform\none.vasp,2\n")
    with pytest.raises(DefectkitError, match="no column 'file'"):
        load(folder)
    table.write_text("file,eform\nthree.cif,2\n")
    with pytest.raises(DefectkitError, match=r"three\.cif: there is no such file"):
        load(folder)
    table.write_text("file,eform\none.vasp,2\none.vasp,3\n")
    with pytest.raises(DefectkitError, match=r"one\.vasp stands twice"):
        load(folder)
    table.write_text("file,eform\n")
    with pytest.raises(DefectkitError, match="names no structure"):
        load(folder)
    table.rename(folder / "a.csv")
    (folder / "b.csv").write_text("file,eform\n")
    with pytest.raises(DefectkitError, match="2 CSV files"):
        load(folder)


def write_table(folder: Path, text: str | bytes) -> Path:
    table = folder / "targets.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"", "is empty"),
        (bytes(range(256)), "bytes that no text has"),
        ("file,host\none.vasp,MoS2\n".encode("utf-16"), "UTF-16"),
        ("file,eform\none.vasp,1,2\n", "row 2: it has 3 cells and the heading 2"),
        ("file,eform,host\none.vasp,1\n", "row 2: it has 2 cells and the heading 3"),
        ('file,eform\n\n"one.vasp,1\n', "row 3: unexpected end of data"),
        ("file,eform,eform\none.vasp,1,1\n", "column 'eform' twice"),
        ("file,eform\none.vasp,1\none.vasp,1\n", "row 3, column file: one.vasp .* row 2"),
        ('file,eform\none.vasp,"0,5"\n', "row 2, column eform: '0,5' is no number"),
        ("file,eform\none.vasp,inf\n", "row 2, column eform: 'inf' is not finite"),
        ("file,spin\none.vasp,up\n", "row 2, column spin: 'up' is no number"),
        ("file,strain\none.vasp,2%\n", "row 2, column strain: '2%' is no number"),
        ("file,supercell\none.vasp,big\n", "column supercell: 'big' .* write 331 or 3x3x1"),
        ("file,host_spacegroup\none.vasp,P-6m2\n", "host_spacegroup: 'P-6m2' .* 1 to 230"),
        ("file,host_spacegroup\none.vasp,231\n", "host_spacegroup: '231'"),
        ("file,converged\none.vasp,maybe\n", "converged: 'maybe' is neither yes nor no"),
        ("file,dopant\none.vasp,Qq\n", "dopant: 'Qq' is no chemical element"),
        ("file,dopant\none.vasp,74\n", "dopant: '74' is no chemical element"),
        ("file,dopant\none.vasp,Cr; Mn\n", "dopant: 'Cr; Mn' is no chemical element"),
        ("file,dopant\none.vasp,Au\n", "row 2, column dopant: there is no Au in one.vasp"),
        ("file,natoms\none.vasp,27\n", "row 2: natoms is 27, and one.vasp holds 26 atoms"),
        ("file,host,dopant\ntwo.xyz,MoS2,S\n", "dopant: the table says 'S' .* 'Li'"),
        ("file,host,removed\none.vasp,MoS2,Mo\n", "removed: the table says 'Mo' .* 'S'"),
        ("file\n../one.vasp\n", "row 2: .*one.vasp lies outside"),
        ("file\n/one.vasp\n", "row 2: /one.vasp lies outside"),
        (f"file\n{'x' * 300}.cif\n", "row 2: .*cannot be opened"),
        (f"file\n{'x' * 3000}.cif\n", "row 2: 'x+\\.\\.\\.' has 3,004 characters"),
        ("file\nhosts\n", "row 2: .*does not say the format"),
        ("file,unrelaxed\none.vasp,two.xyz\n", "column unrelaxed: two.xyz holds"),
        ("file,label_source\none.vasp,DFT\ntwo.xyz,CHGNet\n", "by DFT and row 3 by CHGNet"),
        ("file,label_source\none.vasp,DFT\ntwo.xyz,\n", "labelled by DFT and row 3 by mine"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_place(tmp_path, table, message):
    folder = write_table(write_folder(tmp_path / "mine"), table)
    with pytest.raises(DefectkitError, match=message) as caught:
        load(folder)
    assert "targets.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "said", "read"),
    [
        *(("converged", word, False) for word in "no n F .FALSE. false 0 0.0".split()),
        *(("converged", word, True) for word in ("yes", "T", ".TRUE.", "True", "1", "", "NaN")),
        ("supercell", "331", 331),
        ("supercell", "331.0", 331),
        ("supercell", "3x3x1", 331),
        ("supercell", "3 × 3 × 1", 331),
        ("supercell", "", 0),
        ("removed", '"S "', ("S",)),
        ("dopant", "none", ""),
        ("dopant", "X", ""),
        ("eform", "-1.5e0", -1.5),
        ("eform", "N/A", np.nan),
        ("site", " ads0 ", "ads0"),
    ],
)
def test_what_a_cell_says(tmp_path, column, said, read):
    folder = write_table(write_folder(tmp_path / "mine"), f"file,{column}\none.vasp,{said}\n")
    found = getattr(load(folder).records[0], column)
    assert found == read or (found != found and read != read)
    assert type(found) is type(read)


def test_tables_as_spreadsheets_save_them(tmp_path):
    folder = write_folder(tmp_path / "mine")
    rows = "\r\n".join(
        [" File ;EForm;Note;dopant;", "one.vasp;0,367;3 Å;;", ";;;;", "two.xyz;-1,5;;Li;", ""]
    )
    for encoding in ("utf-8-sig", "cp1252"):
        found = load(write_table(folder, rows.encode(encoding)))
        assert found.frame.eform.tolist() == [0.367, -1.5]
    found = load(write_table(folder, "file\teform\n\n\ntwo.xyz\t2\n"))
    assert found.frame.eform.to_dict() == {"two.xyz": 2.0}


def test_folder_without_energies_loads_and_says_so_where_they_are_needed(tmp_path):
    dataset = load(write_table(write_folder(tmp_path / "mine"), "file,host\none.vasp,MoS2\n"))
    assert dataset.frame.eform.isna().all()
    assert clean(dataset).waterfall.set_index("rule").removed["missing_eform"] == 1
    assert len(clean(dataset, ("not_converged",)).dataset) == 1
    split = Split("random", 0, None, None, dataset.fingerprint, ("one.vasp",), (), (), ())
    with pytest.raises(DefectkitError, match=r"none of 1 rows .* training needs some"):
        train(Prepared(RunConfig(ModelConfig("cgcnn")), dataset, split), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_label_source_of_the_rows_is_that_of_the_data_set(tmp_path):
    folder = write_table(write_folder(tmp_path / "mine"), "file,label_source\none.vasp,DFT-PBE\n")
    assert load(folder).label_source == load(folder).records[0].label_source == "DFT-PBE"
    with pytest.raises(DefectkitError, match="b carries labels of other among labels of test"):
        Dataset("x", "test", [record("a"), replace(record("b"), label_source="other")])


def test_dopant_is_what_the_host_lacks(tmp_path):
    folder = write_folder(tmp_path / "mine")
    unit = HOSTS["MoS2"].unit_cell()
    atoms = unit.repeat((3, 3, 1))
    atoms.symbols[0] = "U"
    write_structure(atoms, folder / "u.cif")
    atoms.symbols[1] = "H"
    write_structure(atoms, folder / "uh.cif")
    antisite = unit.repeat((3, 3, 1))
    antisite.symbols[0] = "S"
    write_structure(antisite, folder / "anti.cif")
    files = ("one.vasp", "two.xyz", "u.cif", "uh.cif", "anti.cif")
    write_table(folder, "file,host\n" + "".join(f"{file},MoS2\n" for file in files))
    frame = load(folder).frame
    assert frame.dopant.tolist() == ["", "Li", "U", "H,U", "S"]
    assert [sorted(filter(None, r.split(","))) for r in frame.removed] == [
        ["S"],
        [],
        ["Mo"],
        ["Mo", "S"],
        ["Mo"],
    ]


@pytest.mark.parametrize("host", ["hBN", "graphene", "2H-MoS2", "MoS2_2H", "1T", "my layer"])
def test_name_of_a_host_is_only_a_name(tmp_path, host):
    folder = write_folder(tmp_path / "mine")
    (folder / "hosts" / "MoS2.cif").rename(folder / "hosts" / f"{host}.cif")
    dataset = load(write_table(folder, f"file,host\none.vasp,{host}\n"))
    assert dataset.frame.host.tolist() == [host]
    assert dataset.frame.formula.tolist() == ["MoS2"]
    assert dataset.families == {host: "AB2 (187)"}
    plain = load(write_folder(tmp_path / "plain")).frame.loc[["one.vasp"]]
    np.testing.assert_array_equal(composition_vectors(dataset.frame), composition_vectors(plain))


def test_hosts_that_are_not_the_rows_are_refused(tmp_path):
    folder = write_folder(tmp_path / "mine")
    host = folder / "hosts" / "MoS2.cif"
    other = write_structure(HOSTS["WSe2"].unit_cell(), folder / "hosts" / "MoS2.vasp")
    with pytest.raises(DefectkitError, match=r"MoS2\.cif and MoS2\.vasp are both the host MoS2"):
        load(folder)
    host.unlink()
    with pytest.raises(DefectkitError, match=r"row 2 \(one\.vasp\): "):
        load(folder)
    for name in ("WS2", "MoSe2"):  # half of the elements are there
        unit = HOSTS[name].unit_cell()
        unit.set_cell(HOSTS["MoS2"].unit_cell().cell, scale_atoms=True)
        write_structure(unit, other)
        with pytest.raises(DefectkitError, match=r"row 2 \(one\.vasp\): .*host"):
            load(folder)
    write_structure(HOSTS["Si2"].unit_cell(), other)
    with pytest.raises(DefectkitError, match=r"row 2 \(one\.vasp\): "):
        load(folder)


def test_doubt_and_missing_hosts_are_said_once(tmp_path, capsys):
    folder = write_folder(tmp_path / "mine")
    unit = HOSTS["MoS2"].unit_cell()
    middle = unit.repeat((3, 3, 1))
    middle.positions[4, :2] += 0.5 * (middle.positions[7, :2] - middle.positions[4, :2])
    del middle[7]  # one S halfway between two sites
    write_structure(middle, folder / "middle.cif")
    table = "file,host\none.vasp,MoS2\nmiddle.cif,MoS2\ntwo.xyz,Mos2\n"
    assert len(load(write_table(folder, table))) == 3
    said = capsys.readouterr().out
    assert "mine: 1 of 3 defects are found with doubt. middle.cif: another site" in said
    assert "no file in hosts/ for Mos2" in said


def test_unrelaxed_positions_of_a_folder(tmp_path):
    folder = write_folder(tmp_path / "mine")
    relaxed = HOSTS["MoS2"].unit_cell().repeat((3, 3, 1))
    del relaxed[4]
    before = relaxed.copy()
    before.positions[3] += [0.0, 0.3, 0.1]
    before.positions[5, 2] += 0.2
    write_structure(before, folder / "before.vasp")
    table = (
        "file,unrelaxed,host\none.vasp,before.vasp,MoS2\ntwo.xyz,yes,MoS2\nbefore.vasp,no,MoS2\n"
    )
    one, two, neither = load(write_table(folder, table)).records
    np.testing.assert_allclose(one.unrelaxed, before.positions, atol=1e-6)
    assert np.linalg.norm(one.displacements(), axis=1).max() == pytest.approx(np.hypot(0.3, 0.1))
    np.testing.assert_array_equal(two.unrelaxed, two.atoms.positions)
    assert neither.unrelaxed is None
    write_structure(before[[0, 2, 1, *range(5, 26), 3, 4]], folder / "mixed.vasp")
    with pytest.raises(DefectkitError, match=r"column unrelaxed: mixed.vasp .* same order"):
        load(write_table(folder, "file,unrelaxed\none.vasp,mixed.vasp\n"))


def change(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    return path


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("update information set value='{x' where name='metadata'", "metadata cannot be read"),
        ("update information set value='[1]' where name='metadata'", "metadata cannot be read"),
        ("update information set value='{}' where name='metadata'", "not a demo database"),
        ("update information set value='{\"hosts\": [1]}' where name='metadata'", "not a demo"),
        ("update information set value='{\"hosts\": {}}' where name='metadata'", "label_source"),
        (
            'update information set value=\'{"label_source": "x", "hosts": {"A": {}}}\' '
            "where name='metadata'",
            "host A does not give symbols, positions and cell",
        ),
        ("update information set value='99' where name='version'", "newer ASE"),
        ("update information set value='4' where name='version'", "old ASE .* ase.db.convert"),
        ("update information set value='x' where name='version'", "does not say its version"),
        ("drop table information", "old ASE"),
        ("drop table systems", "without a table of structures"),
        ("update systems set positions=substr(positions,1,40) where id=2", "row 2 is damaged"),
        ("update systems set key_value_pairs='{x' where id=2", "row 2 is damaged"),
        ("update systems set data=x'01020304' where id=2", "row 2 is damaged"),
        ("update systems set numbers=x'' where id=2", "row 2"),
        ("update systems set cell=zeroblob(72) where id=2", "row 2 has no cell"),
    ],
)
def test_damaged_databases_are_named_for_what_they_are(demo_database, statement, message):
    change(demo_database, statement)
    with pytest.raises(DefectkitError, match=message) as caught:
        load("demo", demo_database)
    assert str(caught.value).startswith(str(demo_database))
    assert "\n" not in str(caught.value)


def test_what_sqlite_says_of_a_schema_is_one_line(demo_database):
    whole = demo_database.read_bytes()
    demo_database.write_bytes(whole.replace(b"free_energy REAL", b"free_energy`REAL"))
    with pytest.raises(DefectkitError, match="is damaged or cut short") as caught:
        load("demo", demo_database)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pairs", "data", "message"),
    [
        ({"eform": "high"}, {}, "row 3, key eform: 'high' is no number"),
        ({"spin": True}, {}, "row 3, key spin: .* is no number"),
        ({"removed": 5}, {}, "row 3, key removed: 5 is no text"),
        ({"dopant": "Qq"}, {}, "row 3, key dopant: 'Qq' is no chemical element"),
        ({"eform": float("inf")}, {}, "row 3, key eform: inf is not finite"),
        ({"label_source": "DFT"}, {}, "carries labels of DFT among labels of CHGNet-0.3.0"),
        ({}, {"unrelaxed_positions": np.zeros((3, 3))}, "row 3, unrelaxed_positions: 28 x 3"),
        ({}, {"unrelaxed_positions": "none"}, "row 3, unrelaxed_positions: 28 x 3"),
        ({}, {"unrelaxed_positions": np.full((28, 3), np.nan)}, "some that are not finite"),
        ({}, {"defect_positions": [1, 2]}, "row 3, defect_positions: k x 3"),
        ({}, {"site_magmoms": [1.0]}, "row 3, site_magmoms: 28 numbers"),
    ],
)
def test_wrong_values_of_a_row_are_named(demo_database, pairs, data, message):
    database = connect(demo_database, type="db", use_lock_file=False)
    row = database.get(2)
    pairs = row.key_value_pairs | {"name": "other"} | pairs
    database.write(row.toatoms(), key_value_pairs=pairs, data=row.data | data)
    with pytest.raises(DefectkitError, match=message):
        load("demo", demo_database)


def test_numbers_that_are_not_known_are_left_out(demo_database):
    database = connect(demo_database, type="db", use_lock_file=False)
    database.update(2, supercell=float("nan"), eform=float("nan"), depth=float("nan"))
    record = load("demo", demo_database).records[1]
    assert record.supercell == 0
    assert np.isnan([record.eform, record.depth]).all()


def test_database_in_use_says_so(demo_database, monkeypatch):
    monkeypatch.setattr("defectkit.data.readers.PATIENCE", 0.1)
    with closing(sqlite3.connect(demo_database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DefectkitError, match="in use by another program"):
            load("demo", demo_database)
    assert len(load("demo", demo_database)) == 2


def test_files_that_only_look_like_databases(demo_database, tmp_path):
    whole = demo_database.read_bytes()
    texts = {
        b"": "is empty",
        whole[: len(whole) // 2]: "damaged or cut short",
        b'{"1": {}, "ids": [1]}': "JSON .* --insert-into",
    }
    for number, (text, message) in enumerate(texts.items()):
        path = tmp_path / f"{number}.db"
        path.write_bytes(text)
        with pytest.raises(DefectkitError, match=message):
            load("demo", path)
        assert path.read_bytes() == text
    with pytest.raises(DefectkitError, match="is a folder"):
        load("demo", tmp_path)


def test_vacancies_in_the_schema_of_imp2d(demo_database):
    database = connect(demo_database, type="db", use_lock_file=False)
    database.update(1, delete_keys=["label_source"], defecttype="vacancy", extension_factor=1.0)
    del database[2]
    dataset = load("imp2d", demo_database)
    assert dataset.records[0].dopant == ""
    assert dataset.hosts == {}  # no row from which a pristine host could be had
    assert dataset.families == {"MoS2": "AB2 (0)"}


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
