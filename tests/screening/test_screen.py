"""A screening: the same from whoever computes it, whole after any kill, and nothing unsaid."""

import os
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from defectkit import DefectkitError
from defectkit.predict.answer import shipped_predictor
from defectkit.predict.own import training_hosts
from defectkit.screening.candidates import Space
from defectkit.screening.funnel import STAGES, Wish, farthest_first, funnel, predicted
from defectkit.screening.store import TABLE, Engine, Screening, screen

DOPANTS = ("H", "F", "Sc", "Cr", "Cs")
WISH = Wish(length=4)
HERE = Engine(workers=0, chunk=24)

# Importing takes longer than the work: children are forks of a process that has all.
KILLER = """
import os, signal, sys, time
from pathlib import Path
from test_screen import HERE, WISH, done, space
from defectkit.screening.store import screen, work_on

folder = Path(sys.argv[1])
work_on(next(space().chunks(8)), None, 0.9)
for number in range(6):
    begun, pid = done(folder), os.fork()
    if not pid:
        screen(space(), folder, WISH, HERE)
        os._exit(0)
    while done(folder) <= begun and os.waitpid(pid, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    time.sleep(0.02 * number)
    try:
        os.kill(pid, signal.SIGKILL)
        print(os.waitpid(pid, 0)[1] == signal.SIGKILL, flush=True)
    except (ProcessLookupError, ChildProcessError):
        break
"""


def space() -> Space:
    return Space({"MoS2": training_hosts("demo")["MoS2"]}, DOPANTS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Screening:
    return screen(space(), tmp_path_factory.mktemp("whole"), WISH, HERE)


def rows(screening: Screening) -> pd.DataFrame:
    """All that is in the file, chunk names included, in one order."""
    with sqlite3.connect(screening.folder / TABLE) as database:
        results = pd.read_sql_query("SELECT * FROM results ORDER BY key", database)
        chunks = pd.read_sql_query("SELECT * FROM chunks ORDER BY name", database)
    assert chunks["rows"].sum() == len(results)
    return results


def assert_same(screening: Screening, other: Screening) -> None:
    pd.testing.assert_frame_equal(rows(screening), rows(other))
    pd.testing.assert_frame_equal(screening.table(), other.table())


def test_every_candidate_has_a_fate_and_a_reason(whole):
    table = whole.table()
    assert len(table) == len(space())
    assert set(table.stage) <= set(STAGES)
    assert (table.reason != "").all()
    assert (table.stage == "chosen").sum() == WISH.length
    counts = whole.funnel
    assert counts.left.iloc[-1] == WISH.length
    assert counts.stopped.sum() + WISH.length == len(table)
    pd.testing.assert_frame_equal(counts, funnel(table))
    chosen = table[table.stage == "chosen"]
    assert chosen.place.is_monotonic_increasing
    assert chosen.place.iloc[0] == 1
    assert (chosen.verdict == "inside").all()
    assert (table.fault[table.stage == "overlap"] != "").all()


def test_margins_are_against_the_best_other_site_and_the_bulk(whole):
    table = whole.table()
    sound = table[(table.fault == "") & (table.impossible == "")]
    for (_, dopant), group in sound.groupby(["host", "dopant"]):
        if dopant == "X":
            continue
        for row in group.itertuples():
            others = group.eform[group.index != row.Index]
            assert row.margin_site == pytest.approx(others.min() - row.eform, abs=1e-3)
            assert group.site[others.idxmin()] == row.other_site or others.duplicated().any()
            assert row.margin_bulk == pytest.approx(-row.eform)
    lone = table[table.name == "MoS2_X_vac0"].iloc[0]
    assert np.isnan(lone.margin_site)


def test_predictions_are_those_of_the_predictor(whole):
    """What chunks give is what the predictor says of the same structures, read from their atoms."""
    predictor = shipped_predictor("hybrid-unrelaxed")
    table = whole.table()
    for family in list(space().families())[::4]:
        defect = family.defect(family.dopants[0])
        own = predictor.predict([defect.atoms], family.unit, relaxed=False).iloc[0]
        row = table.loc[family.keys[0]]
        if own.verdict == "unread":
            assert row.stage == "overlap"
            continue
        for name in ("eform", "eform_lo", "eform_hi", "spin", "eform_sigma", "latent"):
            assert row[name] == pytest.approx(own[name], abs=2e-3), name


def test_two_processes_give_the_same(whole, tmp_path):
    assert_same(screen(space(), tmp_path, WISH, Engine(workers=2, chunk=24)), whole)


def test_a_screening_killed_again_and_again_is_whole(whole, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLER, str(tmp_path)]
    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.stdout.count("True") >= 2, run.stderr
    assert done(tmp_path) > 0
    assert_same(screen(space(), tmp_path, WISH, HERE), whole)


def done(folder) -> int:
    """How many chunks are in the file."""
    if not (folder / TABLE).exists():
        return 0
    try:
        with sqlite3.connect(folder / TABLE) as database:
            return database.execute("SELECT COUNT(*) FROM chunks").fetchone()[0]
    except sqlite3.Error:
        return 0


def test_a_cluster_that_loses_a_worker_gives_the_same(whole, tmp_path, monkeypatch):
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    # Forks have imported what takes a spawned worker many seconds.
    monkeypatch.setitem(dask.config.get("distributed.worker"), "multiprocessing-method", "fork")
    with distributed.LocalCluster(
        2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        killed = []

        def kill(finished: int, total: int) -> None:
            if finished and not killed:
                killed.append(cluster.workers[0].pid)
                os.kill(killed[0], signal.SIGKILL)

        engine = Engine(scheduler=cluster.scheduler_address, chunk=24)
        found = screen(space(), tmp_path, WISH, engine, kill)
    assert killed
    assert_same(found, whole)


def test_another_wish_asks_no_network_again(whole, tmp_path, monkeypatch):
    screening = screen(space(), tmp_path, WISH, HERE)
    monkeypatch.setattr("defectkit.screening.store.predicted", None)
    again = screen(space(), tmp_path, Wish(length=2, most_eform=0.0, least_spin=0.0), HERE)
    chosen = again.table("chosen")
    assert 0 < len(chosen) <= 2
    assert (chosen.eform <= 0).all()
    assert rows(screening).equals(rows(whole))


def test_another_screening_is_refused(whole):
    other = Space({"MoS2": training_hosts("demo")["MoS2"]}, ("Li",))
    with pytest.raises(DefectkitError, match="another choice of dopants"):
        screen(other, whole.folder, WISH, HERE)


def test_a_host_that_nobody_learned_from_is_said_to_be_one():
    unit = training_hosts("demo")["MoS2"].copy()
    unit.cell[:2] *= 1.03
    unit.set_scaled_positions(training_hosts("demo")["MoS2"].get_scaled_positions())
    chunk = next(iter(Space({"wide": unit}, ("Cr",), ("vacancy",)).chunks()))
    table = predicted(chunk, shipped_predictor("hybrid-unrelaxed"))
    assert table.sentence.str.contains("none of the crystals learned from").all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"length": 0}, "ask for one"),
        ({"most_width": 0.0}, "narrower"),
        ({"least_spin": np.nan}, "number"),
    ],
)
def test_wishes_that_none_can_meet_are_refused(change, words):
    with pytest.raises(DefectkitError, match=words):
        Wish(**change)


def test_the_farthest_come_first():
    vectors = np.array([[0.0, 0], [0.1, 0], [5, 0], [0, 4], [5, 0.1]])
    order, nearest = farthest_first(vectors, 3)
    assert order[0] == 0
    assert set(order[1:]) <= {2, 3, 4}
    assert nearest[1] == 0
    assert set(farthest_first(vectors, 10)[0]) == set(range(5))
    assert 2 not in farthest_first(vectors, 3, begun=[2])[0]
