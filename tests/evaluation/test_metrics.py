import numpy as np
import pandas as pd
import pytest

from defectkit import DefectkitError
from defectkit.evaluation.metrics import compare, confusion, group_interval, interval, scores
from defectkit.predict.intervals import check_same_rows

ROWS = pd.DataFrame(
    {
        "eform": [1.0, 2.0, 3.0, 4.0],
        "eform_pred": [1.5, 2.0, 2.0, 4.5],
        "spin": [0.0, 0.6, 3.0, 0.4],
        "spin_pred": [0.2, 0.3, 2.0, 0.0],
    }
)


def test_scores_by_hand():
    found = scores(ROWS)
    assert found["eform_mae"] == pytest.approx((0.5 + 0 + 1 + 0.5) / 4)
    assert found["eform_rmse"] == pytest.approx(np.sqrt((0.25 + 1 + 0.25) / 4))
    assert found["eform_r2"] == pytest.approx(1 - 1.5 / 5.0)
    assert found["spin_mae"] == pytest.approx((0.2 + 0.3 + 1.0 + 0.4) / 4)
    assert found["mag_accuracy"] == pytest.approx(3 / 4)  # 0.6 is magnetic and called not
    assert found["mag_f1"] == pytest.approx(2 / 3)
    assert found["eform_mae_lo"] < found["eform_mae"] < found["eform_mae_hi"]


def test_unknown_labels_do_not_count():
    more = pd.concat([ROWS, ROWS.assign(eform=np.nan, spin=np.nan)])
    assert scores(more) == scores(ROWS)


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [
        low < 1.0 < high
        for low, high in (interval(rng.exponential(size=80), seed=k) for k in range(200))
    ]
    assert 0.88 < np.mean(covered) < 0.98


def test_interval_narrows_with_more_rows_and_repeats_with_its_seed():
    values = np.random.default_rng(0).random(4000)
    few, many = (np.diff(interval(values[:n]))[0] for n in (40, 4000))
    assert many < 0.2 * few
    assert interval(values, seed=3) == interval(values, seed=3)


def test_scores_without_moments_are_unknown_not_wrong():
    found = scores(ROWS.assign(spin=np.nan))
    assert found["eform_mae"] == scores(ROWS)["eform_mae"]
    assert np.isnan([found["spin_mae"], found["mag_f1"], found["mag_accuracy"]]).all()


def test_confusion_by_hand():
    table = confusion(ROWS)
    assert table.loc["not magnetic", "not magnetic"] == 2
    assert table.loc["magnetic", "not magnetic"] == 1  # 0.6 μB, called 0.3
    assert table.loc["magnetic", "magnetic"] == 1
    assert table.to_numpy().sum() == 4


def test_rows_of_a_group_are_drawn_together():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 30)
    values = rng.normal(size=20)[groups] + 0.1 * rng.normal(size=600)
    by_row, by_group = interval(values), group_interval(values, groups)
    assert np.diff(by_group)[0] > 3 * np.diff(by_row)[0]
    # Twenty groups are twenty numbers: their standard error.
    means = pd.Series(values).groupby(groups).mean()
    assert np.diff(by_group)[0] == pytest.approx(2 * 1.96 * means.sem(), rel=0.15)


def test_groups_of_one_row_change_nothing():
    values = np.random.default_rng(1).exponential(size=50)
    assert group_interval(values, np.arange(50)) == pytest.approx(interval(values))


def test_scores_by_group():
    groups = pd.Series(["a", "a", "b", "b"], ROWS.index)
    found = scores(ROWS, groups=groups)
    assert found["eform_mae"] == scores(ROWS)["eform_mae"]
    assert (found["eform_mae_lo"], found["eform_mae_hi"]) == (0.25, 0.75)  # means of the groups


@pytest.fixture
def two_models():
    rng = np.random.default_rng(0)
    label, shared = rng.normal(size=(2, 400))
    better = pd.DataFrame({"eform": label, "eform_pred": label + shared})
    return better, better.assign(eform_pred=label + shared + 0.3 * np.sign(shared))


def test_a_model_compared_with_itself(two_models):
    found = compare(two_models[0], two_models[0])
    assert (found["difference"], found["lo"], found["hi"], found["better"]) == (0, 0, 0, 0)


def test_paired_intervals_see_what_two_intervals_do_not(two_models):
    better, worse = two_models
    found = compare(better, worse)
    for key in ("difference", "lo", "hi"):  # every row is better by the same
        assert found[key] == pytest.approx(-0.3)
    assert found["better"] == 1
    assert np.diff(interval((better.eform_pred - better.eform).abs().to_numpy()))[0] > 0.1
    assert compare(worse, better)["difference"] == pytest.approx(0.3)


def test_the_order_of_rows_does_not_matter(two_models):
    better, worse = two_models
    assert compare(better, worse.sample(frac=1, random_state=0)) == compare(better, worse)


def test_seeds_below_each_other_are_averaged_row_by_row(two_models):
    better, worse = two_models
    both = compare(pd.concat([better, worse]), better)
    assert both["difference"] == pytest.approx(0.15)
    assert both["n"] == 400


def test_grouped_comparison_is_wider_where_groups_differ(two_models):
    better, worse = two_models
    groups = pd.Series(np.arange(400) // 40, better.index)
    more = (groups < 5) * np.sign(worse.eform_pred - worse.eform)
    uneven = worse.assign(eform_pred=worse.eform_pred + more)
    rows, grouped = (compare(uneven, better, groups=g) for g in (None, groups))
    assert rows["difference"] == grouped["difference"]
    assert grouped["hi"] - grouped["lo"] > 3 * (rows["hi"] - rows["lo"])


def test_other_rows_or_labels_are_refused(two_models):
    better, worse = two_models
    with pytest.raises(DefectkitError, match="1 rows are predicted by one"):
        check_same_rows(better, worse[:-1])
    with pytest.raises(DefectkitError, match="labels of 7 differ"):
        compare(better, worse.assign(eform=worse.eform + (worse.index == 7)))
    with pytest.raises(DefectkitError, match="labels of 3 differ"):
        compare(better, worse.assign(eform=worse.eform.where(worse.index != 3)))
