"""Predictors of a defect's sites: what they learned, what they were never shown, how they ship."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from defectkit import DefectkitError, DefectRecord
from defectkit.cli import app
from defectkit.data import Dataset
from defectkit.data.splits import Split, make_split
from defectkit.graphs.build import GraphConfig
from defectkit.predict.domain import NEIGHBOURS, changes_of, farthest, same_crystal
from defectkit.predict.predictor import COLUMNS, UNREAD, Predictor
from defectkit.structures.defects import DefectSite, make_defect
from defectkit.structures.files import read_structure, write_structure
from defectkit.structures.hosts import HOSTS, hosts_2dmd
from defectkit.structures.recognise import recognise
from defectkit.training import prepared
from defectkit.training.config import DataConfig, ModelConfig, RunConfig, with_values
from defectkit.training.inference import load_model
from defectkit.training.prepared import Prepared
from defectkit.training.pretrained import CHECKPOINTS
from defectkit.training.run import Run
from defectkit.training.train import train

EIGHT = (8, 8, 1)
SITES = RunConfig(
    ModelConfig("sites", {"hidden": 8, "pair": 8, "layers": 1, "radial": 8}),
    DataConfig(path="/somewhere/private"),
    GraphConfig(nodes="defects", image_radius=12.0, angle_cutoff=None),
    epochs=2,
)


def pair(unit: Atoms, i: int, j: int = 0, size: tuple[int, int, int] = EIGHT) -> Atoms:
    """Vacancies of the second atom, i and j cells apart."""
    vacancies = ((1, (0, 0, 0)), (1, (i, j, 0)))
    return make_defect(unit, size, DefectSite("pair", "vacancy", vacancies=vacancies), "").atoms


def record(uid: str, atoms: Atoms, host: str, **labels: float) -> DefectRecord:
    return DefectRecord(uid, atoms, host, "made up", **labels)


@pytest.fixture(scope="module")
def made() -> tuple[Dataset, Split]:
    """Pairs of vacancies in six hosts, and vacancies beside tungsten in one of them."""
    hosts, rng, records = hosts_2dmd(), np.random.default_rng(0), []
    for name, unit in hosts.items():
        for k in range(12):
            atoms = pair(unit, 1 + k % 2, 1 + k // 4, (6, 6, 1))
            if name == "MoS2" and k % 2:
                atoms.symbols[np.flatnonzero(atoms.symbols == "Mo")[0]] = "W"
            eform, gap = rng.normal(5, 1), rng.uniform(0.5, 2)
            spin = np.nan if name == "MoS2" else rng.uniform(0, 2)
            new = record(f"{name}-{k}", atoms, name, eform=eform, gap=gap, spin=spin)
            found = recognise(atoms, unit)
            dopant = "W" if "W" in atoms.symbols[found.defect_indices] else ""
            kind = {"removed": found.removed, "defecttype": found.defecttype, "dopant": dopant}
            records.append(replace(new, **kind))
    dataset = Dataset("made", "made up", records, hosts, {name: name for name in hosts})
    return dataset, make_split(dataset)


def trained(config: RunConfig, made, folder, name: str) -> list[Run]:
    runs = [folder / f"{name}-{seed}" for seed in (0, 1)]
    for seed, run in enumerate(runs):
        train(Prepared(config, *made), run, seed=seed, progress=False)
    return list(map(Run, runs))


@pytest.fixture(scope="module")
def runs(made, tmp_path_factory):
    """Two runs for each target, on rows that `prepare` finds."""
    folder = tmp_path_factory.mktemp("runs")
    gap = with_values(SITES, {"data.target": "gap", "model.settings.extensive": False})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFECTKIT_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(prepared, "prepare", lambda config: Prepared(config, *made))
        yield {
            "eform": trained(SITES, made, folder, "sites"),
            "gap": trained(gap, made, folder, "sites-gap"),
        }


@pytest.fixture(scope="module")
def energies(runs):
    return Predictor.fit(runs["eform"])


@pytest.fixture(scope="module")
def gaps(runs):
    return Predictor.fit(runs["gap"])


def test_a_users_way_from_a_file_to_energy_and_gap_in_six_hosts(energies, gaps, made, tmp_path):
    hosts = hosts_2dmd()
    records = []
    for name, unit in hosts.items():
        path = write_structure(pair(unit, 2, 1), tmp_path / f"{name}.cif")
        records.append(record(name, read_structure(path), name))
    for predictor, target in ((energies, "eform"), (gaps, "gap")):
        table = predictor(records, hosts)
        low, value, high = (table[f"{target}{end}"] for end in ("_lo", "", "_hi"))
        assert ((low <= value) & (value <= high)).all()
        assert set(table.index) == set(hosts)
        assert (table.reading == "").all()
        assert (table[f"{target}_sigma"] > 0).all()
    assert "inside" in set(energies(made[0].records, hosts).verdict)


def test_a_gap_is_called_a_gap_and_never_negative(gaps, made):
    table = gaps(made[0].records, made[0].hosts)
    assert list(table) == [name.replace("eform", "gap") for name in COLUMNS] == gaps.columns
    assert (table.gap_lo >= 0).all()
    assert list(gaps([], {})) == gaps.columns
    lost = gaps([replace(made[0].records[0], host="nowhere")], made[0].hosts)
    assert list(lost) == gaps.columns
    assert lost.verdict.tolist() == [UNREAD]


def changed(unit: Atoms, symbol: str, index: int) -> Atoms:
    atoms = unit.repeat(EIGHT)
    atoms.symbols[index] = symbol
    return atoms


def with_added(atoms: Atoms, symbol: str, height: float) -> Atoms:
    top = atoms.positions[atoms.positions[:, 2].argmax()]
    return atoms + Atoms(symbol, positions=[top + [0, 0, height]])


def moved(atoms: Atoms) -> Atoms:
    atoms.positions[7, 0] += 0.15
    return atoms


def strained(atoms: Atoms, factor: float) -> Atoms:
    atoms.set_cell(atoms.cell.array * [[factor], [factor], [1.0]], scale_atoms=True)
    return atoms


def octahedral() -> Atoms:
    """MoS2 in the 1T structure: the bonds of a vacancy are those of 2H, the crystal is not."""
    unit = hosts_2dmd()["MoS2"]
    unit.positions[2, :2] *= -1
    return unit


def doubtful() -> dict[str, tuple[Atoms, Atoms, str]]:
    """By name: structure, host, and words of what is said."""
    hosts = hosts_2dmd()
    mos2, bn, zrs2 = hosts["MoS2"], hosts["BN"], HOSTS["ZrS2"].unit_cell()
    return {
        "adsorbate": (with_added(pair(mos2, 2), "Li", 2.3), mos2, "no Li adsorbate"),
        "other dopant": (changed(mos2, "Zr", 0), mos2, "no Zr in place of Mo"),
        "known elsewhere": (changed(hosts["WSe2"], "Mo", 0), hosts["WSe2"], "no Mo in place of W"),
        "other element": (changed(bn, "Se", 1), bn, "no Se in place of N"),
        "relaxed": (moved(pair(mos2, 2)), mos2, "0.15 Å from its site"),
        "strained": (strained(pair(mos2, 2), 1.03), mos2, "strained by 3.0%"),
        "1T": (pair(octahedral(), 2), octahedral(), "none of the crystals"),
        "other host": (pair(zrs2, 2), zrs2, "none of the crystals"),
        "far": (with_added(pair(mos2, 2), "Li", 8.0), mos2, "without a bond"),
    }


@pytest.mark.parametrize("name", doubtful())
def test_what_was_never_learned_is_never_inside(energies, name):
    atoms, host, words = doubtful()[name]
    table = energies([record("a", atoms, "host")], {"host": host})
    assert words in table.reading.a
    assert table.reading.a in table.sentence.a
    assert table.verdict.a in ("unlike", "both")


def test_a_little_strain_and_the_cell_of_another_code_are_no_doubt(energies):
    hosts = {"2dmd": hosts_2dmd()["MoS2"], "own": HOSTS["MoS2"].unit_cell()}
    atoms = strained(pair(hosts["2dmd"], 2), 1.004)
    records = [record("strained", atoms, "2dmd"), record("own", pair(hosts["own"], 2), "own")]
    assert energies(records, hosts).reading.tolist() == ["", ""]


def test_atoms_of_the_host_are_not_taken_for_loose(energies, made):
    """A graph of two vacancies has no atoms, and one of two sites no bonds."""
    table = energies(made[0].records[:3], made[0].hosts)
    assert not table.reading.str.contains("bond").any()


def test_words_of_a_defect():
    unit = hosts_2dmd()["MoS2"]
    atoms = with_added(pair(unit, 2), "Li", 2.3)
    atoms.symbols[0] = "W"
    found = recognise(atoms, unit)
    assert changes_of(found, atoms) == {"S vacancy", "W in place of Mo", "Li adsorbate"}
    assert farthest(found, atoms) < 1e-9
    turned = unit.copy()
    turned.rotate(37, "z", rotate_cell=True)
    assert same_crystal(turned, unit)
    assert same_crystal(unit.repeat((3, 2, 1)), unit)
    assert not same_crystal(octahedral(), unit)


def test_a_moment_that_was_never_learned_is_no_number(made, tmp_path, monkeypatch):
    blind = [replace(one, spin=np.nan) for one in made[0].records]
    dataset = replace(made[0], records=blind)
    rows = (dataset, make_split(dataset))
    monkeypatch.setattr(prepared, "prepare", lambda config: Prepared(config, *rows))
    runs = trained(with_values(SITES, {"epochs": 1}), rows, tmp_path, "blind")
    assert load_model(runs[0].folder)[1].spin_range is None
    assert runs[0].part("valid").spin_pred.isna().all()
    table = Predictor.fit(runs)(blind[:2], made[0].hosts)
    assert table[["spin", "spin_sigma"]].isna().all(axis=None)
    assert table.eform.notna().all()
    assert not table.impossible.str.contains("no number").any()


def test_what_was_learned_is_saved_with_the_predictor(energies, made):
    path = energies.members[0].parent / "sites.safetensors"
    energies.save(path)
    again = Predictor.load(path)
    assert again.learned == energies.learned
    assert again.learned.changes["MoS2"] == ["S vacancy", "W in place of Mo"]
    some = made[0].records[:5]
    pd.testing.assert_frame_equal(again(some, made[0].hosts), energies(some, made[0].hosts))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"hosts": {}, "changes": {}}',
        '{"hosts": {"a": 1}, "changes": {}, "moved": 0.0}',
        '{"hosts": {}, "changes": {}, "moved": 0.0, "more": 1}',
        '{"hosts": {"a": {"symbols": ["Qq"], "positions": [[0,0,0]], "cell": [[3,0,0],[0,3,0],'
        '[0,0,9]]}}, "changes": {"a": []}, "moved": 0.0}',
        '{"hosts": {"a": {"symbols": [], "positions": [], "cell": [[3,0,0],[0,3,0],[0,0,9]]}},'
        '"changes": {"a": []}, "moved": 0.0}',
        '{"hosts": {}, "changes": {"a": []}, "moved": 0.0}',
    ],
)
def test_what_was_learned_is_checked_when_it_is_read(energies, tmp_path, text):
    path = energies.members[0].parent / "whole.safetensors"
    energies.save(path)
    broken = tmp_path / "broken.safetensors"
    arrays = load_file(path) | {"learned": np.frombuffer(text.encode(), np.uint8)}
    save_file(arrays, broken, {"members": '{"a": "1", "b": "2"}'})
    with pytest.raises(DefectkitError, match="holds no predictor") as error:
        Predictor.load(broken)
    assert "\n" not in str(error.value)


def test_what_is_handed_on_holds_no_labels_and_no_path(energies, made, tmp_path):
    path = tmp_path / "shipped" / "sites.safetensors"
    energies.hand_on(path)
    assert sorted(p.name for p in path.parent.iterdir()) == ["sites-0", "sites-1", path.name]
    for folder in Predictor.load(path).members:
        names = {"model.safetensors", "model.yaml", "config.yaml", "summary.yaml"}
        assert {p.name for p in folder.iterdir()} == names
        assert all(b"private" not in p.read_bytes() for p in folder.iterdir())
        assert Run(folder).config == with_values(SITES, {"data.path": None})
    shipped = Predictor.load(path)
    assert (shipped.valid.eform_pred == 0).all()
    some = made[0].records[:5]
    there, here = (one(some, made[0].hosts) for one in (shipped, energies))
    pd.testing.assert_frame_equal(there, here, rtol=1e-5)
    before = path.read_bytes()
    with pytest.raises(DefectkitError, match="there already; say --replace"):
        energies.hand_on(path)
    energies.hand_on(path, replace=True)
    assert path.read_bytes() == before


def test_join_hands_on(runs, tmp_path):
    folders = [str(run.folder) for run in runs["gap"]]
    to = tmp_path / "out" / "gaps"
    result = CliRunner().invoke(app, ["join", *folders, "--rows", "30", "--to", str(to)])
    assert result.exit_code == 0, result.output
    found = Predictor.load(tmp_path / "out" / "gaps.safetensors")
    assert [folder.name for folder in found.members] == ["gaps-0", "gaps-1"]
    assert {len(values) for values in found.training.values()} == {30}


def test_rows_of_rare_compositions_are_kept_first(runs, energies):
    few = Predictor.fit(runs["eform"], rows=7 * NEIGHBOURS)
    count = pd.Series([row.tobytes() for row in few.training["composition"]]).value_counts()
    every = pd.Series([row.tobytes() for row in energies.training["composition"]]).value_counts()
    assert len(few.training["latent"]) == 7 * NEIGHBOURS < len(energies.training["latent"])
    assert set(count.index) == set(every.index)
    assert (count.loc[every.index] >= every.clip(upper=NEIGHBOURS)).all()
    again = Predictor.fit(runs["eform"], rows=7 * NEIGHBOURS)
    assert np.array_equal(again.training["latent"], few.training["latent"])
    with pytest.raises(DefectkitError, match="keep fewer"):
        Predictor.fit(runs["eform"], rows=1000)


def test_shipped_predictors_of_sites_vouch_for_pairs_of_vacancies():
    hosts = hosts_2dmd()
    for path in CHECKPOINTS.glob("sites*.safetensors"):
        predictor = Predictor.load(path)
        assert {folder.name for folder in predictor.members} == {
            f"{path.stem}-{k}" for k in (0, 1, 2)
        }
        assert predictor.card.label_source == "DFT-PBE (2DMD)"
        records = [record(f"{i}", pair(hosts["MoS2"], i), "MoS2") for i in (1, 2, 3, 4)]
        assert (predictor(records, hosts).verdict == "inside").mean() >= 0.5


def test_intervals_know_the_host_and_how_many_sites_there_are():
    shipped = Predictor.load(CHECKPOINTS / "sites.safetensors")
    hosts = hosts_2dmd()
    lone = record("lone", pair(hosts["MoS2"], 3), "MoS2")
    crowd = make_defect(
        hosts["MoS2"],
        EIGHT,
        DefectSite("four", "vacancy", vacancies=tuple((1, (2 * k, 0, 0)) for k in range(4))),
        "",
    )
    other = record("other", pair(hosts["P"], 3), "P")
    four = record("four", crowd.atoms, "MoS2")
    found = shipped([lone, four, other], hosts)
    together = replace(shipped, hosts=None)([lone, four, other], hosts)
    width, plain = ((table.eform_hi - table.eform_lo) for table in (found, together))
    pd.testing.assert_frame_equal(found[["eform", "verdict"]], together[["eform", "verdict"]])
    assert width["lone"] < plain["lone"]
    assert width["other"] > 2 * plain["other"]
    assert width["four"] > 5 * width["lone"]
