import numpy as np
import pandas as pd
import pytest

from defectkit.evaluate import interval, scores

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
