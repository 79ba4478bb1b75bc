"""The search: blind to test rows, resumed without repeating itself, one search a folder."""

from dataclasses import replace

import numpy as np
import pytest
from run_cases import CGCNN

from defectkit import DefectkitError
from defectkit.data.splits import make_split
from defectkit.training import tune as module
from defectkit.training.config import Choice, RunConfig, TuneConfig, load_config, with_values
from defectkit.training.prepared import Prepared
from defectkit.training.train import train
from defectkit.training.tune import tune

RUN = replace(CGCNN, epochs=1)
FOREST = RunConfig({"name": "lightgbm", "settings": {"n_estimators": 3}})
RATES = {"model.settings.learning_rate": Choice(low=0.01, high=0.5, log=True)}

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def few(rows):
    chosen = rows.subset(rows.frame.index[:30])
    return chosen, make_split(chosen)


def tuned(config, few, folder, seed=0):
    return tune(config, Prepared(config.run, *few), folder, seed)


def test_a_grid_resumes_and_ends(few, tmp_path):
    search = {"optimiser.lr": Choice(choices=(1e-3, 1e-2)), "model.settings.layers": Choice((1, 2))}
    config = TuneConfig(RUN, search, trials=2, sampler="grid")
    assert len(tuned(config, few, tmp_path)) == 2
    trials = tuned(replace(config, trials=9), few, tmp_path)
    assert len(trials) == 4
    assert len(trials[["optimiser.lr", "model.settings.layers"]].drop_duplicates()) == 4
    best = trials.loc[trials.value.idxmin()]
    chosen = load_config(tmp_path / "best.yaml")
    assert chosen.optimiser.lr == best["optimiser.lr"]
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["best.yaml", "run.json", "study.db", "trials.csv"]


def test_test_rows_are_not_seen(few, tmp_path, monkeypatch):
    seen = []

    def watched(prepared, *args, **kwargs):
        seen.append(prepared.split.test)
        return train(prepared, *args, **kwargs)

    monkeypatch.setattr(module, "train", watched)
    tuned(TuneConfig(FOREST, RATES, trials=1), few, tmp_path)
    assert seen == [()]


def test_a_search_that_was_resumed_draws_like_one_that_was_not(few, tmp_path):
    config = TuneConfig(FOREST, RATES, trials=12)  # ten are drawn before it learns from them
    whole = tuned(config, few, tmp_path / "whole")
    for trials in (11, 12):
        parts = tuned(replace(config, trials=trials), few, tmp_path / "parts")
    name = "model.settings.learning_rate"
    assert parts[name].tolist() == whole[name].tolist()
    assert parts[name].nunique() == 12


def test_a_trial_that_was_killed_is_done_again(few, tmp_path, monkeypatch):
    search = {"model.settings.num_leaves": Choice((4, 8, 16))}
    for sampler, found in (("grid", search), ("bayes", RATES)):
        config, name = TuneConfig(FOREST, found, 3, sampler), next(iter(found))
        whole = tuned(config, few, tmp_path / f"{sampler} whole")
        folder = tmp_path / sampler
        calls = []

        class Killed(BaseException):
            pass

        def killed(*args, calls=calls, error=Killed, **kwargs):
            calls.append(1)
            if len(calls) == 2:
                raise error
            return train(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(module, "train", killed)
            with pytest.raises(Killed):
                tuned(config, few, folder)
        again = tuned(config, few, folder)
        done = again[again.state == "COMPLETE"]
        assert done[name].tolist() == whole[name].tolist()


def test_the_folder_of_another_search_is_refused(few, tmp_path):
    config = TuneConfig(FOREST, RATES, trials=1)
    tuned(config, few, tmp_path)
    others = [
        (replace(config, run=with_values(FOREST, {"model.settings.n_estimators": 4})), 0),
        (replace(config, search={"model.settings.learning_rate": Choice((0.1, 0.2))}), 0),
        (config, 1),
    ]
    for other, seed in others:
        with pytest.raises(DefectkitError, match="another run or search"):
            tuned(other, few, tmp_path, seed)
    with pytest.raises(DefectkitError, match="another run or search"):
        train(Prepared(FOREST, *few), tmp_path)
    train(Prepared(FOREST, *few), tmp_path / "run")
    with pytest.raises(DefectkitError, match="another run or search"):
        tuned(config, few, tmp_path / "run")


def test_settings_that_do_not_fit_are_pruned_with_their_reason(few, tmp_path):
    search = {"model.settings.num_leaves": Choice((1, 4))}
    trials = tuned(TuneConfig(FOREST, search, 2, "grid"), few, tmp_path)
    assert sorted(trials.state) == ["COMPLETE", "PRUNED"]
    assert trials.fault.notna().tolist() == (trials.state == "PRUNED").tolist()
    with pytest.raises(DefectkitError, match="lightgbm do not fit"):
        tuned(TuneConfig(FOREST, {"model.settings.num_leaves": Choice((1,))}), few, tmp_path / "b")


def test_training_that_diverges_does_not_end_a_search(few, tmp_path):
    search = {"optimiser.lr": Choice((1e30, 1e-3))}
    run = with_values(RUN, {"optimiser.name": "sgd", "epochs": 5})
    trials = tuned(TuneConfig(run, search, 2, "grid"), few, tmp_path)
    assert trials.fault.str.contains("diverged").sum() == 1
    assert load_config(tmp_path / "best.yaml").optimiser.lr == 1e-3


def test_a_range_of_whole_numbers_draws_whole_numbers(few, tmp_path):
    search = {"model.settings.num_leaves": Choice(low=3, high=20), **RATES}
    trials = tuned(TuneConfig(FOREST, search, 4), few, tmp_path)
    leaves = trials["model.settings.num_leaves"]
    assert (leaves == np.round(leaves)).all()
    rates = trials["model.settings.learning_rate"]
    assert not (rates == np.round(rates)).any()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "needs choices, or both low and high"),
        ({"low": 1.0}, "needs choices, or both low and high"),
        ({"low": 2.0, "high": 1.0}, "low must be below high"),
        ({"low": 0.0, "high": 1.0, "log": True}, "lies above zero"),
        ({"choices": (1, 2), "low": 1.0, "high": 2.0}, "not both"),
        ({"choices": (1, 1)}, "twice"),
    ],
    ids=str,
)
def test_a_choice_that_is_none_is_refused(values, said):
    with pytest.raises(DefectkitError, match=said):
        Choice(**values)


def test_a_search_that_cannot_be_is_refused(few, tmp_path):
    with pytest.raises(DefectkitError, match=r"learning_rate has a range"):
        TuneConfig(FOREST, RATES, sampler="grid")
    with pytest.raises(DefectkitError, match="search is empty"):
        TuneConfig(FOREST, {})
    many = {f"model.settings.{k}": Choice(tuple(range(99))) for k in "abc"}
    with pytest.raises(DefectkitError, match="970,299 points"):
        TuneConfig(FOREST, many, sampler="grid")
    (tmp_path / "tune.yaml").write_text(
        "run: {model: {name: ridge}}\nsearch: {model.settings.alpha: {high: 1}}\n"
    )
    with pytest.raises(DefectkitError, match=r"tune\.yaml: a search value needs"):
        load_config(tmp_path / "tune.yaml", TuneConfig)
    unknown = TuneConfig(FOREST, {"model.settings.leafs": Choice(low=1.0, high=2.0)})
    with pytest.raises(DefectkitError, match="leafs is no setting"):
        tuned(unknown, few, tmp_path / "out")


def test_a_damaged_study_is_named(few, tmp_path):
    config = TuneConfig(FOREST, RATES, trials=1)
    tuned(config, few, tmp_path)
    (tmp_path / "study.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(DefectkitError, match=r"study\.db cannot be read"):
        tuned(replace(config, trials=2), few, tmp_path)
