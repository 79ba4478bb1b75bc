"""Which rows a run learned from: the same answer wherever it is asked."""

from dataclasses import replace

import pytest
import yaml
from run_cases import CGCNN

from defectkit import DefectkitError
from defectkit.data.splits import make_split
from defectkit.training import prepared
from defectkit.training.config import ModelConfig, with_values
from defectkit.training.inference import load_model
from defectkit.training.prepared import Prepared, learned_from, training_rows
from defectkit.training.pretrained import CHECKPOINTS, LADDER
from defectkit.training.run import Run
from defectkit.training.train import train

RIDGE = replace(CGCNN, model=ModelConfig("ridge"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFECTKIT_DATA", str(tmp_path / "data"))


@pytest.fixture
def some(rows):
    """40 rows; the first has its atoms in each other before relaxation."""
    few = rows.subset(rows.frame.index[:40])
    first = few.records[0]
    start = first.unrelaxed.copy()
    start[1] = start[0] + 0.1
    return replace(few, records=[replace(first, unrelaxed=start), *few.records[1:]])


@pytest.fixture
def parts(some, monkeypatch):
    """A split with that row in training."""
    split = next(
        s for s in (make_split(some, seed=k) for k in range(9)) if some.records[0].uid in s.train
    )
    monkeypatch.setattr(prepared, "prepare", lambda config: Prepared(config, some, split))
    return split


def test_rows_without_a_graph_are_recorded_and_not_believed_in(some, parts, tmp_path):
    config = with_values(RIDGE, {"graph.positions": "unrelaxed"})
    run = train(Prepared(config, some, parts), tmp_path / "run", progress=False)
    broken = some.records[0].uid
    left_out = run.summary["left_out"]
    assert broken in left_out
    assert len(left_out) < 4  # starts of few others are as bad
    assert all("less than half the sum" in reason for reason in left_out.values())
    dataset, uids = learned_from(run)
    assert dataset is some
    assert set(uids) == set(parts.train) - set(left_out)
    assert run.summary["rows"]["train"] == len(uids)


def test_drawn_training_rows_are_those_of_the_draw(some, parts, tmp_path):
    config = with_values(RIDGE, {"data.train_rows": 12})
    run = train(Prepared(config, some, parts), tmp_path / "run", progress=False)
    _, uids = learned_from(run)
    assert run.summary["left_out"] == {}
    assert len(uids) == 12
    assert set(uids) < set(parts.train)
    more = training_rows(with_values(config, {"data.train_rows": 20}), parts, {})
    assert set(uids) < set(more)


def test_a_run_on_other_rows_or_with_another_count_is_refused(some, parts, tmp_path, monkeypatch):
    run = train(Prepared(RIDGE, some, parts), tmp_path / "run", progress=False)
    blind = train(
        Prepared(RIDGE, some, replace(parts, test=())), tmp_path / "blind", progress=False
    )
    assert learned_from(blind)[1] == learned_from(run)[1]  # a study is not shown the test rows
    path = run.folder / "summary.yaml"
    values = yaml.safe_load(path.read_text())
    for change, words in (
        ({"data_fingerprint": "x"}, "trained on other rows"),
        ({"split_fingerprint": "x"}, "trained on other rows"),
        ({"rows": values["rows"] | {"train": 3}}, "tells of 3 training rows"),
    ):
        path.write_text(yaml.safe_dump(values | change))
        with pytest.raises(DefectkitError, match=words):
            learned_from(Run(run.folder))


def test_the_range_of_moments_is_that_of_their_sizes(rows, tmp_path):
    few = rows.subset(rows.frame.index[:40])
    signed = replace(
        few, records=[replace(r, spin=-2.0 - k / 40) for k, r in enumerate(few.records)]
    )
    run = train(
        Prepared(replace(CGCNN, epochs=1), signed, make_split(signed)),
        tmp_path / "run",
        progress=False,
    )
    low, high = load_model(run.folder)[1].spin_range
    assert 2.0 <= low < high < 3.0


@pytest.mark.parametrize(
    "folder",
    [CHECKPOINTS / "hybrid-unrelaxed-0", LADDER / "random-0-hybrid-0"],
    ids=lambda path: path.name,
)
def test_shipped_runs_say_what_they_learned_from(folder, monkeypatch):
    monkeypatch.delenv("DEFECTKIT_DATA")
    run = Run(folder)
    _, uids = learned_from(run)
    assert len(uids) == run.summary["rows"]["train"]
    assert not set(uids) & set(run.predictions.index)
