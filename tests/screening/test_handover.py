"""What leaves a screening: structures, tables, a page; and rows that were computed after it."""

import numpy as np
import pandas as pd
import pytest
from ase.db import connect

from defectkit import DefectkitError
from defectkit.bench.measure import OUTPUT
from defectkit.data import load
from defectkit.data.demo import _layer_shape, read_hosts
from defectkit.predict.answer import shipped_predictor
from defectkit.predict.own import training_hosts
from defectkit.screening.candidates import Space
from defectkit.screening.choose import (
    BEST,
    STRATEGIES,
    Pool,
    against_random,
    next_ones,
    replay,
)
from defectkit.screening.funnel import Wish
from defectkit.screening.handover import hand_over
from defectkit.screening.label import label
from defectkit.screening.store import Engine, Screening, screen
from defectkit.structures.files import read_structure
from defectkit.structures.hosts import hosts_2dmd


@pytest.fixture(scope="module")
def screening(tmp_path_factory) -> Screening:
    space = Space({"Si2": training_hosts("demo")["Si2"]}, ("H", "F", "Sc", "Cr"))
    wish = Wish(length=3, least_margin=-9.0)
    return screen(space, tmp_path_factory.mktemp("screening"), wish, Engine(workers=0))


def test_all_that_is_handed_over_agrees(screening):
    written = hand_over(screening)
    assert all(path.exists() for path in written)
    chosen = screening.table("chosen")
    told = pd.read_csv(screening.folder / "shortlist.csv")
    assert list(told.key) == list(chosen.index)
    assert told.reason.str.len().min() > 20
    rows = list(connect(screening.folder / "winners.db").select())
    assert [row.candidate for row in rows] == list(told.key)
    assert {row.label_source for row in rows} == {"predicted from CHGNet-0.3.0"}
    files = sorted((screening.folder / "structures").iterdir())
    assert len(files) == len(told)
    for row, one in zip(rows, told.itertuples(), strict=True):
        atoms = read_structure(screening.folder / one.file)
        assert sorted(atoms.symbols) == sorted(row.toatoms().symbols)
        assert len(atoms) == one.natoms == row.natoms
        assert row.predicted_eform == pytest.approx(one.eform)
    page = (screening.folder / "README.md").read_text(encoding="utf-8")
    assert "CHGNet-0.3.0" in page
    assert "μB" in page
    assert "None of them has been computed" in page
    stages = pd.read_csv(screening.folder / "funnel.csv")
    assert stages.left.iloc[-1] == len(told)


def test_a_shorter_list_leaves_no_file_behind(screening):
    screen(screening.space, screening.folder, Wish(length=2, least_margin=-9.0), Engine(workers=0))
    hand_over(screening)
    assert len(list((screening.folder / "structures").iterdir())) == 2


def test_what_was_screened_is_known_from_the_folder(screening):
    keys = {key for family in screening.space.families() for key in family.keys}
    assert keys == set(screening.table().index)
    with pytest.raises(DefectkitError, match="holds no screening"):
        Screening(screening.folder / "structures").table()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_chooses_as_many_as_asked(screening, strategy):
    known = shipped_predictor("hybrid-unrelaxed").training["latent"]
    chosen = next_ones(screening, 4, known, strategy)
    assert len(set(chosen.index)) == 4
    assert (chosen.fault == "").all()
    pd.testing.assert_frame_equal(chosen, next_ones(screening, 4, known, strategy))


def test_strategies_choose_what_their_names_say():
    rng = np.random.default_rng(0)
    vectors = np.array([[0.0], [0.1], [5.0], [9.0], [9.1]])
    mean, sigma = np.array([1.0, -1.0, 0.0, 3.0, 3.0]), np.array([0.1, 0.1, 0.2, 0.9, 0.8])
    pool = Pool(mean, sigma, vectors, np.array([[0.0], [9.0]]), 0.0)
    assert list(STRATEGIES["uncertain"](pool, 2, rng)) == [3, 4]
    assert list(STRATEGIES["unlike"](pool, 1, rng)) == [2]
    assert list(STRATEGIES["improving"](pool, 1, rng)) == [1]
    assert set(STRATEGIES["uncertain and unlike"](pool, 5, rng)) == set(range(5))


def test_a_choice_that_cannot_be_is_refused(screening):
    known = shipped_predictor("hybrid-unrelaxed").training["latent"]
    with pytest.raises(DefectkitError, match="between 1 and these"):
        next_ones(screening, 10_000, known)
    with pytest.raises(DefectkitError, match="No strategy is called 'best'"):
        next_ones(screening, 3, known, "best")


def test_the_default_is_what_the_replays_chose():
    curves = pd.concat([pd.read_csv(OUTPUT / f"{name}.csv") for name in ("choice", "choice_2dmd")])
    assert set(curves.data) == {"demo", "2dmd"}
    for _, own in curves.groupby("data"):
        assert set(own.strategy) == set(STRATEGIES)
        assert own.seed.nunique() >= 5
    worst = against_random(curves).ratio.groupby("strategy").max()
    assert worst.drop("random").idxmin() == BEST


def test_strategies_are_compared_with_rows_at_random_seed_by_seed():
    errors = {("random", 0): 2.0, ("random", 1): 4.0, ("good", 0): 1.0, ("good", 1): 3.0}
    rows = [
        {"data": "a", "strategy": name, "seed": seed, "labelled": labelled, "mae": mae * scale}
        for (name, seed), mae in errors.items()
        for labelled, scale in ((10, 9.0), (20, 1.5), (30, 0.5))  # the first round does not count
    ]
    found = against_random(pd.DataFrame(rows))
    assert found.loc[("a", "random")].tolist() == [1.0, 0.0]
    assert found.ratio["a", "good"] == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert found.half["a", "good"] == pytest.approx(12.706 * 0.125, rel=1e-3)  # t, one degree


def test_a_replay_learns():
    rng = np.random.default_rng(0)
    features = pd.DataFrame(rng.normal(size=(200, 4)))
    labels = features[0] + features[1] ** 2
    curves = replay(features, labels, 10, 4, [0, 1])
    assert len(curves) == len(STRATEGIES) * 2 * 5
    ends = curves.groupby("strategy")[["mae", "regret"]].agg(["first", "last"])
    assert (ends["mae"]["last"] < ends["mae"]["first"]).all()
    assert (curves.regret >= 0).all()
    firsts = curves[curves.labelled == 10]
    assert (firsts.groupby("seed").mae.nunique() == 1).all()  # all begin with the same rows
    with pytest.raises(DefectkitError, match="do not fit 200 rows"):
        replay(features, labels, 50, 10, [0])


def test_a_flat_host_has_no_thickness():
    space = Space({"BN": hosts_2dmd()["BN"]}, ("Fe",), sites=("int0", "ads0"))
    depths = {}
    for family in space.families():
        (candidate,), defect = family.candidates, family.defect("Fe")
        depths[family.site.name], extension = _layer_shape(
            candidate, family.unit, defect, defect.atoms
        )
        assert np.isnan(extension)
    assert depths == {"int0": 0.0, "ads0": np.inf}


def test_computed_rows_can_be_learned_from(screening, tmp_path, monkeypatch):
    """With a quick stand-in for CHGNet: what is written is read as rows of the demo are."""
    from concurrent.futures import ThreadPoolExecutor

    from defectkit.data import demo, potential

    def relaxed(atoms, calculator):
        moments = np.zeros(len(atoms))
        return potential.Relaxation(atoms.copy(), -1.0, -1.0, 0.0, 0.0, 0.01, moments)

    monkeypatch.setattr(potential, "relax", relaxed)
    monkeypatch.setattr(demo, "calculator", lambda: None)
    monkeypatch.setattr(
        "defectkit.screening.label.process_pool", lambda workers, begin: ThreadPoolExecutor(1)
    )
    keys = list(screening.table("chosen").index)
    path, seen = tmp_path / "labels.db", []
    assert label(screening, keys, path, 1, lambda done, total: seen.append((done, total))) == {}
    assert seen[-1] == (len(keys), len(keys))
    data = load("demo", path)
    assert len(data) == len(keys)
    assert data.label_source == "CHGNet-0.3.0"
    shipped = read_hosts(connect(path).metadata)["Si2"]
    for record in data.records:
        removed = record.removed_chemical_potential - record.dopant_chemical_potential
        supercell = shipped.energy * np.prod(shipped.repeat)
        assert record.eform == pytest.approx(-1.0 - supercell + removed, abs=1e-4)
    assert label(screening, keys, path) == {}  # nothing is left to do
    assert len(load("demo", path)) == len(keys)
