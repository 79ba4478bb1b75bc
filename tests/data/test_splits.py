import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from imp2d_fixture import TWINS
from processors import other_processors, run_on

from defectkit import DefectkitError
from defectkit.data import Dataset, load, splits
from defectkit.data.splits import FOLDS, PARTS, Split, dopant_block, make_split, structure_groups
from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS
from defectkit.structures.record import DefectRecord

HOST_NAMES = ("MoS2", "WS2", "SnS2", "TiS2", "NbS2", "P4")
DOPANTS = ("Li", "Fe", "Co", "Au", "C", "")
FAMILIES = {h: "1T" if h in ("SnS2", "TiS2") else "other" for h in HOST_NAMES}


def table(hosts, dopants) -> Dataset:
    """Rows without a structure to speak of, for splits with given groups."""
    atoms = Atoms("H", cell=[3, 3, 20], pbc=(1, 1, 0))
    records = [
        DefectRecord(uid=f"row{i}", atoms=atoms, host=h, dopant=d, label_source="test", eform=1.0)
        for i, (h, d) in enumerate(zip(hosts, dopants))
    ]
    return Dataset("test", "test", records, families=FAMILIES)


@st.composite
def grouped_tables(draw):
    """A table with every host and dopant, and groups of one to three neighbouring rows."""
    n = draw(st.integers(40, 120))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hosts = [*HOST_NAMES, *rng.choice(HOST_NAMES, n - 6)]
    dopants = [*DOPANTS, *rng.choice(DOPANTS, n - 6)]
    dataset = table(hosts, dopants)
    rank = np.cumsum(rng.random(n) < 0.7)
    keys = [f"{h}{d}{r // 2}" for h, d, r in zip(hosts, dopants, rank)]
    return dataset, pd.Series(keys, dataset.frame.index)


ARGUMENTS = [
    {"kind": "random"},
    *({"kind": kind, "fold": fold} for kind in ("host", "dopant", "pair") for fold in range(FOLDS)),
    {"kind": "leave-one-host-out", "held_out": "SnS2"},
    {"kind": "leave-one-dopant-out", "held_out": "Fe"},
]


@settings(max_examples=60, deadline=None)
@given(
    grouped_tables(),
    st.sampled_from(ARGUMENTS),
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.1, 0.3]),
)
def test_parts_are_disjoint_complete_and_keep_groups(case, arguments, seed, calibration):
    dataset, groups = case
    split = make_split(dataset, **arguments, seed=seed, calibration=calibration, groups=groups)
    parts = {name: getattr(split, name) for name in PARTS}
    assert sorted(sum(parts.values(), ())) == sorted(dataset.frame.index)
    part_of = pd.Series({uid: name for name, uids in parts.items() for uid in uids})
    assert part_of.groupby(groups).nunique().max() == 1
    assert bool(split.calibration) == (calibration > 0)
    again = make_split(dataset, **arguments, seed=seed, calibration=calibration, groups=groups)
    assert again == split
    shuffled = dataset.subset(sorted(dataset.frame.index, key=lambda uid: uid[::-1]))
    other = make_split(shuffled, **arguments, seed=seed, calibration=calibration, groups=groups)
    assert other == split


@settings(max_examples=20, deadline=None)
@given(grouped_tables(), st.sampled_from(["host", "dopant", "pair"]), st.integers(0, 1000))
def test_folds_hold_out_whole_units_and_cover_everything(case, kind, seed):
    dataset, groups = case
    frame = dataset.frame
    units = frame.host + frame.dopant if kind == "pair" else frame[kind]
    tested: list[str] = []
    for fold in range(FOLDS):
        split = make_split(dataset, kind, seed=seed, fold=fold, groups=groups)
        assert not set(units[list(split.test)]) & set(units[list(split.train + split.valid)])
        tested += split.test
    assert sorted(tested) == sorted(frame.index)


def many_rows(n: int = 1000) -> Dataset:
    rng = np.random.default_rng(1)
    return table(rng.choice(HOST_NAMES, n), rng.choice(DOPANTS, n))


def alone(dataset: Dataset) -> pd.Series:
    return pd.Series(dataset.frame.index, dataset.frame.index)


def test_random_shares_and_seeds():
    dataset = many_rows()
    split = make_split(dataset, groups=alone(dataset), calibration=0.05)
    sizes = [len(getattr(split, name)) for name in PARTS]
    assert sizes == [750, 100, 100, 50]
    other = make_split(dataset, groups=alone(dataset), calibration=0.05, seed=1)
    assert len(set(split.test) & set(other.test)) < 30


def test_leave_one_out_and_block():
    dataset = many_rows()
    frame = dataset.frame
    groups = alone(dataset)
    split = make_split(dataset, "leave-one-host-out", held_out="P4", groups=groups)
    assert set(split.test) == set(frame.index[frame.host == "P4"])
    split = make_split(dataset, "leave-one-dopant-out", held_out="", groups=groups)
    assert set(split.test) == set(frame.index[frame.dopant == ""])
    split = make_split(dataset, "block", held_out=("1T", "3d"), groups=groups)
    inside = frame.host.isin(["SnS2", "TiS2"]) & frame.dopant.isin(["Fe", "Co"])
    assert set(split.test) == set(frame.index[inside])
    assert 90 <= len(split.valid) <= 110


def test_a_twin_of_a_held_out_row_goes_with_it():
    dataset = table(["MoS2"] * 20, ["Li", "Fe"] * 10)
    groups = alone(dataset)
    groups["row1"] = groups["row0"]  # an Fe row that is the same structure as an Li row
    split = make_split(dataset, "leave-one-dopant-out", held_out="Li", groups=groups)
    assert "row1" in split.test
    assert len(split.test) == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "scaffold"}, "use one of random"),
        ({"kind": "host"}, "needs fold=0 to 4"),
        ({"kind": "host", "fold": 5}, "needs fold=0 to 4"),
        ({"fold": 1}, "takes no fold"),
        ({"held_out": "MoS2"}, "takes no held_out"),
        ({"kind": "leave-one-host-out"}, "needs held_out"),
        ({"kind": "leave-one-host-out", "held_out": "Kr"}, "has no Kr; hold out one of MoS2"),
        ({"kind": "block", "held_out": ("1T", "9d")}, "hold out one of"),
        ({"calibration": 0.9}, "nothing to train on"),
        ({"calibration": -0.1}, "nothing to train on"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    dataset = many_rows(60)
    with pytest.raises(DefectkitError, match=message):
        make_split(dataset, **arguments, groups=alone(dataset))


def test_data_that_does_not_fit():
    one_host = table(["MoS2"] * 30, ["Li"] * 30)
    with pytest.raises(DefectkitError, match="5 different hosts"):
        make_split(one_host, "host", fold=0, groups=alone(one_host))
    with pytest.raises(DefectkitError, match="nothing is left to train on"):
        make_split(one_host, "leave-one-host-out", held_out="MoS2", groups=alone(one_host))
    with pytest.raises(DefectkitError, match="no entry for row0"):
        make_split(one_host, groups=alone(one_host).iloc[1:])
    with pytest.raises(DefectkitError, match="nothing is left"):
        make_split(table([], []), groups=pd.Series(dtype=object))


def test_saved_split_returns_only_for_its_data(tmp_path):
    dataset = many_rows(100)
    path = tmp_path / "split.json"
    split = make_split(dataset, "block", held_out=("1T", "3d"), groups=alone(dataset))
    split.save(path)
    assert Split.load(path, dataset) == split
    changed = [replace(r, eform=2.0) if r.uid == "row7" else r for r in dataset.records]
    with pytest.raises(DefectkitError, match="other data"):
        Split.load(path, replace(dataset, records=changed))
    with pytest.raises(DefectkitError, match="other data"):
        Split.load(path, dataset.subset(split.train))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "random"}'])
def test_broken_split_files(tmp_path, text):
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(DefectkitError, match="not a readable split file"):
        Split.load(path, many_rows(10))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["test"].append(v["train"][0]), "stands twice, in train and in test"),
        (lambda v: v["train"].append(v["train"][0]), "stands twice, in train;"),
        (lambda v: v["calibration"].append("nope"), "no row nope"),
        (lambda v: v.update(train=v["train"][:5]), "such as row"),
        (lambda v: v.update(train="abc"), "train: "),
        (lambda v: v.update(train=[1, 2]), "train.0: "),
        (lambda v: v.update(valid=None), "valid: "),
        (lambda v: v.update(fingerprint=None), "fingerprint: "),
        (lambda v: v.update(seed="0"), "seed: "),
        (lambda v: v.update(note="mine"), "note: "),
        (lambda v: v.pop("calibration"), "calibration: "),
        (lambda v: v.update(kind="fair"), "no split 'fair'"),
        (lambda v: v.update(kind="host"), "needs fold"),
        (lambda v: v.update(kind="host", fold=0), "no host split"),
        (lambda v: v.update(kind="leave-one-host-out", held_out="1T"), "no leave-one-host-out"),
        (lambda v: v.update(kind="block", held_out=["1T", "3d"]), "no block split"),
    ],
)
def test_a_split_file_keeps_what_it_promises(tmp_path, change, words):
    dataset, path = many_rows(60), tmp_path / "split.json"
    make_split(dataset, groups=alone(dataset)).save(path)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(DefectkitError, match=words) as error:
        Split.load(path, dataset)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "how",
    [{"kind": kind, "fold": 1} for kind in ("host", "dopant", "pair")]
    + [{"kind": "leave-one-dopant-out", "held_out": "Fe"}, {"calibration": 0.2}],
    ids=str,
)
def test_every_kind_of_split_returns_from_its_file(tmp_path, how):
    dataset, path = many_rows(120), tmp_path / "split.json"
    split = make_split(dataset, groups=alone(dataset), **how)
    split.save(path)
    assert Split.load(path, dataset) == split


def test_split_file_is_readable_json(tmp_path):
    dataset = many_rows(50)
    make_split(dataset, groups=alone(dataset)).save(tmp_path / "split.json")
    values = json.loads((tmp_path / "split.json").read_text())
    assert values["fingerprint"] == dataset.fingerprint
    assert len(values["test"]) == 5


@pytest.mark.parametrize(
    ("dopant", "block"),
    [
        ("Li", "s"),
        ("C", "p"),
        ("Fe", "3d"),
        ("Ag", "4d"),
        ("Au", "5d"),
        ("", "none"),
        ("Se,W", "mixed"),
        ("Se,S", "p"),
    ],
)
def test_blocks_of_the_periodic_table(dopant, block):
    assert dopant_block(dopant) == block


def structures(*atoms: Atoms, eform=None) -> Dataset:
    eform = eform or [1.0] * len(atoms)
    return Dataset(
        "test",
        "test",
        [
            DefectRecord(uid=f"s{i}", atoms=a, host="MoS2", label_source="test", eform=e)
            for i, (a, e) in enumerate(zip(atoms, eform))
        ],
    )


def adatom(seed: int = 0) -> Atoms:
    unit = HOSTS["MoS2"].unit_cell()
    atoms = make_defect(unit, (3, 3, 1), find_sites(unit)[0], "Be").atoms
    atoms.positions += np.random.default_rng(seed).normal(0, 0.15, (len(atoms), 3))
    return atoms


def same_elsewhere(atoms: Atoms, noise: float) -> Atoms:
    """Shuffled, moved by a lattice vector of the host, turned by 120 degrees, and rattled."""
    rng = np.random.default_rng(5)
    other = atoms[rng.permutation(len(atoms))]
    other.positions += atoms.cell[0] / 3 + [0, 0, 0.4]
    other.rotate(120, "z")  # a symmetry of the hexagonal cell: the cell itself stays
    other.positions += rng.uniform(-noise, noise, (len(atoms), 3))
    other.wrap()
    return other


def test_one_structure_in_two_descriptions_is_one_group():
    atoms = adatom()
    groups = structure_groups(structures(atoms, same_elsewhere(atoms, 0.002), adatom(seed=1)))
    assert groups.to_dict() == {"s0": "s0", "s1": "s0", "s2": "s2"}


def test_near_misses_are_no_group():
    atoms = adatom()
    moved = atoms.copy()
    moved.positions[-1] += [0.5, 0.0, 0.0]
    replaced = atoms.copy()
    replaced.symbols[0], replaced.symbols[-1] = "Be", "Mo"
    grown = atoms.copy()
    grown.set_cell(atoms.cell * [1.02, 1.02, 1], scale_atoms=True)  # matching does not scale
    dataset = structures(atoms, moved, replaced, grown)
    assert structure_groups(dataset).nunique() == 4
    assert structure_groups(structures(atoms, atoms, eform=[1.0, 1.5])).nunique() == 2


def test_missing_energy_does_not_hide_a_twin():
    atoms = adatom()
    dataset = structures(atoms, adatom(1), atoms, eform=[1.0, 5.0, np.nan])
    assert structure_groups(dataset).to_dict() == {"s0": "s0", "s1": "s1", "s2": "s0"}


def test_groups_do_not_depend_on_order():
    atoms = adatom()
    dataset = structures(atoms, adatom(1), same_elsewhere(atoms, 0.001))
    groups = structure_groups(dataset)
    backwards = structure_groups(dataset.subset(["s2", "s1", "s0"]))
    pd.testing.assert_series_equal(groups, backwards)


def test_groups_are_found_once(tmp_path, monkeypatch):
    atoms = adatom()
    dataset = structures(atoms, adatom(1), same_elsewhere(atoms, 0.001))
    groups = structure_groups(dataset, tmp_path)
    (file,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(splits, "_find_groups", None)
        pd.testing.assert_series_equal(structure_groups(dataset, tmp_path), groups)
    for damaged in (b"", b"\xff\x00", file.read_bytes()[:-12], b"uid,group\ns0,s0\n"):
        file.write_bytes(damaged)
        pd.testing.assert_series_equal(structure_groups(dataset, tmp_path), groups)
    assert list(tmp_path.iterdir()) == [file]


def test_twins_of_imp2d_stay_together(trap_database):
    dataset = load("imp2d", trap_database)
    groups = structure_groups(dataset)
    shared = groups[groups.duplicated(keep=False)]
    assert sorted(shared.index) == sorted(TWINS)
    for seed in range(10):
        split = make_split(dataset, seed=seed)
        assert sum(set(TWINS) <= set(getattr(split, name)) for name in PARTS) == 1


def crowded(host: str, repeat: int, rng: np.random.Generator, count: int) -> Dataset:
    """Unrelaxed cells with one atom replaced and one or two missing, twins among them."""
    unit = HOSTS[host].unit_cell()
    whole = unit.repeat((repeat, repeat, 1))
    rows = []
    for number in range(count):
        atoms = whole.copy()
        chosen = rng.choice(len(atoms), 2 + number % 2, replace=False)
        atoms.symbols[chosen[0]] = "Au"
        del atoms[chosen[1:]]
        rows.append(atoms[rng.permutation(len(atoms))])
    records = [
        DefectRecord(f"s{k:03}", a, host, "test", eform=1.0, unrelaxed=a.positions.copy())
        for k, a in enumerate(rows)
    ]
    return Dataset("test", "test", records, {host: unit})


@pytest.mark.parametrize("host", ["MoS2", "P4", "MoSSe", "Ge2H2", "TiS2"])
def test_unrelaxed_structures_fall_into_the_groups_that_matching_finds(host, monkeypatch):
    dataset = crowded(host, 2, np.random.default_rng(3), 40)
    assert splits._lattice_forms(dataset.records[::2][:1] * 2, dataset.hosts) is not None
    groups = structure_groups(dataset)
    monkeypatch.setattr(splits, "_lattice_forms", lambda records, hosts: None)
    pd.testing.assert_series_equal(groups, structure_groups(dataset))
    assert groups.nunique() < len(groups)


def test_energies_still_tell_unrelaxed_structures_apart():
    dataset = crowded("MoS2", 3, np.random.default_rng(0), 1)
    (record,) = dataset.records
    energies = (1.0, 1.01, 1.5, np.nan)
    rows = [replace(record, uid=f"s{k}", eform=e) for k, e in enumerate(energies)]
    assert structure_groups(replace(dataset, records=rows[:3])).tolist() == ["s0", "s0", "s2"]
    assert structure_groups(replace(dataset, records=rows)).nunique() == 1


def test_real_2dmd_structures_are_all_different(pilot):
    assert structure_groups(pilot).nunique() == 200


DRAW = """
import sys
from defectkit.data import load
from defectkit.data.splits import FOLDS, make_split, structure_groups

data = load("demo")
few = data.frame.dopant.isin(["", "H", "O", "Li", "Fe", "Au"])
data = data.subset(data.frame.index[few & (data.frame.natoms < 50)])
groups = structure_groups(data)
print(data.fingerprint, *groups.items())
kinds = [("random", None)] + [(k, f) for k in ("host", "dopant", "pair") for f in range(FOLDS)]
for kind, fold in kinds:
    for seed in range(3):
        print(make_split(data, kind, seed, fold, calibration=0.05, groups=groups))
"""


@pytest.mark.slow
@other_processors
def test_groups_and_splits_are_the_same_on_every_processor(processor, drawn_here):
    assert len(drawn_here.splitlines()) == 1 + 16 * 3
    assert run_on(processor, DRAW) == drawn_here


@pytest.fixture(scope="module")
def drawn_here() -> str:
    return run_on("here", DRAW)
