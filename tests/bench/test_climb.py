"""The ladder on 2DMD: what each step holds out, and the rows of its table."""

import pandas as pd
import pytest
from real_rows import some_rows

from defectkit import bench
from defectkit.bench import climb
from defectkit.training.config import with_values
from defectkit.training.prepared import prepare


@pytest.fixture(scope="module")
def climbed(real_data, tmp_path_factory, own_cache):
    """The table after one epoch of small networks, and the jobs it is made of."""
    place = tmp_path_factory.mktemp("climb")
    rows = {"high_BN": 90, "high_MoS2": 60, "high_P": 60, "low_MoS2": 60, "low_WSe2": 60}
    path = some_rows(real_data, tmp_path_factory.mktemp("2dmd"), rows)
    full = climb.configured

    def short(file, folder, target):
        if file.stem != climb.NETWORK:
            return full(file, folder, target)
        small = {"model.settings.hidden": 8, "model.settings.pair": 4, "model.settings.layers": 1}
        return with_values(full(file, folder, target), {"epochs": 1, "batch_size": 50, **small})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(climb, "configured", short)
        patch.setattr(climb, "FOLDER", place / "runs")
        patch.setattr(climb, "SEEDS", (0,))
        patch.setattr(climb, "FORMULAS", ("BN", "P"))
        patch.setattr(climb, "MODELS", {"sites": (0,), "pairs": (0,)})
        patch.setattr(climb, "SHOTS", (50,))
        patch.setattr(climb, "SHOT_STEPS", 10)
        patch.setattr(climb, "FEW_SHOT", {"BN": "high_BN"})
        hosts = ("leave-one-formula-out", [{"held_out": name} for name in ("BN", "P")], (0,))
        patch.setitem(climb.STEPS, "host", hosts)
        # In this process, which has the patches.
        patch.setattr(climb, "train_all", lambda work, jobs, name: [work(*job) for job in jobs])
        table = pd.read_csv(bench.run("ladder_2dmd", output=place, path=path))
        jobs = [*climb._steps(path), *climb._few_shots(path)]
    return table, jobs


def test_nothing_held_out_is_learned_from(climbed):
    _, jobs = climbed
    for job in jobs:
        prepared = prepare(job.config)
        frame, split = prepared.dataset.frame, prepared.split
        seen, tested = frame.loc[[*split.train, *split.valid]], frame.loc[list(split.test)]
        if job.step == "host":
            assert not set(seen.formula) & set(tested.formula)
            assert tested.formula.nunique() == 1
        if job.step == "density":
            assert set(seen.subset) == {"low_MoS2", "low_WSe2"}
            assert tested.subset.str.startswith("high").all()
        if job.config.start:
            start = prepare(next(j.config for j in jobs if str(j.folder) == job.config.start))
            learned = start.dataset.frame.loc[[*start.split.train, *start.split.valid]]
            assert not set(learned.formula) & set(tested.formula)


def test_the_table_has_a_row_a_step_model_and_subset(climbed):
    table, _ = climbed
    counts = table.groupby(["step", "model"], sort=False).subset.apply(list)
    assert len(counts["random", "sites"]) == 6
    assert counts["density", "pairs"] == ["high_MoS2"]
    assert counts["host", "sites"] == ["high_BN", "high_P", "mean of 2"]
    assert counts["few-shot 50", "sites, fine-tuned"] == ["high_BN"]
    assert (table.mae_lo <= table.mae).all()
    assert (table.mae <= table.mae_hi).all()
    assert table.coverage.between(0, 1).all()
    assert (table[table.step == "few-shot 50"].n_train == 50).all()


def test_the_mean_is_that_of_the_subsets(climbed):
    table, _ = climbed
    for _, rows in table.groupby(["step", "model"]):
        mean = rows.subset.str.startswith("mean of")
        if mean.any():
            assert rows[mean].mae.item() == pytest.approx(rows[~mean].mae.mean(), abs=2e-5)
            assert rows[mean].n_test.item() == rows[~mean].n_test.sum()
