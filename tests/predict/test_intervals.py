"""Conformal intervals, ensembles and their ranking, against theory and scipy."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from defectkit import DefectkitError
from defectkit.evaluation.coverage import coverage, coverage_by, ranking, reliability
from defectkit.predict.intervals import (
    LEAST_OF_KIND,
    MAGNETIC,
    ByKind,
    Conformal,
    Expected,
    Magnetism,
    ensemble,
)


def made(n: int, seed: int, scale: float = 1.0) -> pd.DataFrame:
    """Rows whose spread is the standard deviation of their error, but for `scale`."""
    rng = np.random.default_rng(seed)
    sigma = rng.uniform(0.1, 2.0, n)
    label = rng.normal(0, 3, n)
    predicted = label + scale * sigma * rng.normal(size=n)
    names = [f"{seed}-{number}" for number in range(n)]
    return pd.DataFrame({"eform": label, "eform_pred": predicted, "eform_sigma": sigma}, names)


def moments(n: int, seed: int) -> pd.DataFrame:
    """Rows of which a tenth has a moment; the members say less of it, and disagree the more."""
    rng = np.random.default_rng(seed)
    spin = np.where(rng.random(n) < 0.1, rng.uniform(0.6, 3.0, n), 0.0)
    doubt = rng.uniform(0, 1, n) ** 2
    predicted = spin * (1 - doubt) + rng.exponential(0.02, n)
    sigma = spin * doubt + rng.exponential(0.01, n)
    return pd.DataFrame({"spin": spin, "spin_pred": predicted, "spin_sigma": sigma})


def errors(rows: pd.DataFrame) -> pd.Series:
    return (rows.eform_pred - rows.eform).abs()


def test_factor_by_hand():
    predicted = [0.4, -0.1, 0.3, -0.2, 0.5, 0.7, 0.6, 0.9, -0.8]
    rows = pd.DataFrame({"eform": 0.0, "eform_pred": predicted})
    fitted = Conformal.fit(rows)
    assert fitted.factor(0.8) == 0.8  # the 8th of 9
    assert fitted.factor(0.9) == 0.9  # the 9th
    assert fitted.factor(0.95) == np.inf  # nine rows cannot promise it
    assert fitted.half_width(rows, 0.5).tolist() == [0.5] * 9


@pytest.mark.parametrize("normalised", [False, True])
def test_intervals_cover_as_often_as_they_say(normalised):
    shares = []
    for seed in range(60):
        rows = made(400, 1000 + seed)
        half = Conformal.fit(made(200, seed), normalised).half_width(rows)
        shares.append((errors(rows) <= half).mean())
    # Mean over calibration sets: between c and c + 1 / (n + 1), here with its standard error.
    assert 0.9 - 0.009 < np.mean(shares) < 0.9 + 1 / 201 + 0.009


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 0.95))
def test_calibration_rows_are_covered_at_least_as_often(seed, level):
    rows = made(120, seed)
    half = Conformal.fit(rows, normalised=True).half_width(rows, level)
    assert (errors(rows) <= half + 1e-12).mean() >= level


def signed(n: int, seed: int) -> tuple[pd.Series, pd.Series, pd.DataFrame]:
    """Errors that grow with the first of two signs and with the prediction."""
    rng = np.random.default_rng(seed)
    signs = pd.DataFrame(rng.uniform(0.1, 2.0, (n, 2)), columns=["eform_sigma", "latent"])
    prediction = pd.Series(rng.normal(0, 1, n))
    return signs.eform_sigma * np.exp(prediction) * rng.normal(size=n), prediction, signs


def test_the_expected_error_follows_signs_and_prediction():
    found = Expected.fit(*signed(4000, 0))
    assert found.weights == pytest.approx((1.0, 0.0), abs=0.15)
    assert found.slope == pytest.approx(1.0, abs=0.15)
    error, prediction, signs = signed(2000, 1)
    expected = found(prediction, signs)
    assert spearmanr(expected, error.abs()).statistic > 0.55
    rows = pd.DataFrame({"eform": 0.0, "eform_pred": error, "eform_sigma": signs.eform_sigma})
    told = rows.assign(expected=expected)
    half = Conformal.fit(told[:1000], normalised=True).half_width(told[1000:])
    assert (errors(rows[1000:]) <= half).mean() == pytest.approx(0.9, abs=0.03)
    blind = Conformal.fit(rows[:1000], normalised=True).half_width(rows[1000:])
    assert half.median() < 0.8 * blind.median()  # as often right, and narrower
    unknown = error.where(error.index % 2 == 0)
    assert Expected.fit(unknown, prediction, signs).weights == pytest.approx((1.0, 0.0), abs=0.2)


def test_normalised_intervals_follow_the_spread():
    calibration, rows = made(2000, 0), made(2000, 1)
    table = coverage(calibration, rows).set_index(["method", "level"])
    medians = table.width_median[:, 0.9]
    assert medians["normalised"] < medians["absolute"]
    for (_, level), row in table.iterrows():
        assert row.lo < row.coverage < row.hi
        assert row.coverage == pytest.approx(level, abs=0.03)
    wide = pd.qcut(rows.eform_sigma, 4, labels=["narrow", "b", "c", "wide"])
    plain = coverage_by(calibration, rows, wide, 0.9)
    assert plain.index[0] == "wide"
    assert plain.coverage["narrow"] > 0.99
    scaled = coverage_by(calibration, rows, wide, 0.9, "normalised")
    assert scaled.coverage.min() > plain.coverage.min()


def test_the_promise_breaks_where_rows_are_drawn_otherwise():
    table = coverage(made(500, 0), made(500, 1, scale=3.0))
    assert (table.hi < table.level).all()


def mixed(n: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of two kinds, of which the rare one errs by far more than its members spread."""
    rows = made(n, seed)
    host = (np.random.default_rng(seed).random(n) < 0.1).astype(int)
    rows["eform_pred"] += np.where(host, 20 * (rows.eform_pred - rows.eform), 0)
    return rows, pd.DataFrame({"host": host, "many": 0}, rows.index)


def test_each_kind_is_covered_as_often_as_all_are():
    calibration, rows = mixed(2000, 0), mixed(2000, 1)
    inside = {
        "together": Conformal.fit(calibration[0], normalised=True).half_width(rows[0]),
        "by kind": ByKind.fit(*calibration).half_width(*rows),
    }
    inside = {name: errors(rows[0]) <= half for name, half in inside.items()}
    rare = rows[1].host == 1
    assert inside["together"][rare].mean() < 0.6
    for some in (rare, ~rare):
        assert inside["by kind"][some].mean() == pytest.approx(0.9, abs=0.05)


def test_a_kind_without_rows_enough_has_the_interval_of_those_around_it():
    rows, kinds = mixed(400, 0)
    kinds["many"] = (np.arange(400) < LEAST_OF_KIND - 1).astype(int)
    fitted = ByKind.fit(rows, kinds)
    assert {key for key in fitted.parts if len(key) == 2} == {(0, 0), (1, 0)}
    few = kinds.host.eq(0) & kinds.many.eq(1)
    own = fitted.parts[0,].half_width(rows[few])
    pd.testing.assert_series_equal(fitted.half_width(rows[few], kinds[few]), own)
    unknown = kinds.assign(host=-1)
    whole = Conformal.fit(rows, normalised=True).half_width(rows)
    pd.testing.assert_series_equal(fitted.half_width(rows, unknown), whole)
    pd.testing.assert_series_equal(ByKind.fit(rows, kinds[[]]).half_width(rows, kinds[[]]), whole)
    # Forty rows cannot promise 99 %: then all together do.
    assert np.isinf(fitted.parts[1,].factor(0.99))
    assert np.isfinite(fitted.half_width(rows, kinds, 0.99)).all()
    with pytest.raises(DefectkitError, match="between 0 and 1"):
        fitted.factor(1.0)


def test_grouped_coverage_is_less_sure():
    calibration, rows = made(300, 0), made(300, 1)
    groups = pd.Series(np.arange(300) // 50, rows.index)
    rows.loc[groups < 2, "eform_pred"] += 5.0
    plain, grouped = coverage(calibration, rows), coverage(calibration, rows, groups=groups)
    assert (grouped.hi - grouped.lo > 2 * (plain.hi - plain.lo)).all()


def test_reliability_is_on_the_diagonal_for_honest_spread():
    rows = made(2000, 1)
    table = reliability(made(2000, 0), rows)
    assert set(table) == {"absolute", "normalised", "gaussian"}
    assert np.abs(table.sub(table.index, axis=0)).to_numpy().max() < 0.05
    sure = reliability(made(2000, 0), rows.assign(eform_sigma=rows.eform_sigma / 5))
    assert sure.gaussian[0.9] < 0.4


def test_a_single_run_has_absolute_intervals_alone():
    calibration, rows = (made(100, k).drop(columns="eform_sigma") for k in (0, 1))
    assert set(coverage(calibration, rows).method) == {"absolute"}
    assert list(reliability(calibration, rows)) == ["absolute"]
    agreeing = made(100, 0).assign(eform_sigma=1e-16)
    other = made(100, 1).assign(eform_sigma=1e-16)
    assert set(coverage(agreeing, other).method) == {"absolute"}
    with pytest.raises(DefectkitError, match="absolute"):
        Conformal.fit(agreeing, normalised=True)


def test_rows_that_set_the_widths_cannot_judge_them():
    rows = made(100, 0)
    few = pd.concat([made(50, 1), rows[:1]])
    label = pd.Series("all", few.index)
    for judge in (coverage, reliability, lambda a, b: coverage_by(a, b, label)):
        with pytest.raises(DefectkitError, match="1 rows, such as 0-0"):
            judge(rows, few)


def test_rank_correlation_is_scipys():
    rows = made(300, 0)
    found = ranking(rows)
    expected = spearmanr(rows.eform_sigma, errors(rows)).statistic
    assert found["spearman"] == pytest.approx(expected)
    assert 0 < found["lo"] < expected < found["hi"]
    assert np.isnan(ranking(rows.assign(eform_sigma=0.0))["spearman"])


def member(eform: list[float], spin: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame(
        {"part": "test", "eform": [1.0, 2.0], "spin": 0.0, "eform_pred": eform, "spin_pred": spin},
        ["a", "b"],
    )


def test_ensemble_by_hand():
    members = [member([1.0, 2.0]), member([2.0, 2.0], 0.6), member([3.0, 2.0]).loc[["b", "a"]]]
    table = ensemble(members)
    assert table.eform_pred.tolist() == [2.0, 2.0]
    assert table.eform_sigma.tolist() == [1.0, 0.0]
    assert table.spin_pred.tolist() == pytest.approx([0.2, 0.2])
    assert table.eform.tolist() == [1.0, 2.0]


def test_ensembles_of_one_or_of_other_rows_are_refused():
    with pytest.raises(DefectkitError, match="two runs"):
        ensemble([member([1.0, 2.0])])
    with pytest.raises(DefectkitError, match="one split"):
        ensemble([member([1.0, 2.0]), member([1.0, 2.0])[:1]])


def test_the_chance_of_a_moment_is_met_and_finds_more_than_the_moment():
    rows = moments(20000, 1)
    magnetic = rows.spin > MAGNETIC
    chance = Magnetism.fit(moments(2000, 0)).chance(rows.spin_pred, rows.spin_sigma)
    assert chance.mean() == pytest.approx(magnetic.mean(), abs=0.01)
    assert magnetic[chance > 0.9].mean() > 0.9
    assert magnetic[chance < 0.1].mean() < 0.02
    missed = (magnetic & (chance < 0.5)).sum()
    assert missed < 0.5 * (magnetic & (rows.spin_pred < MAGNETIC)).sum()


def test_no_chance_without_enough_rows_of_either_kind():
    rows = moments(2000, 0)
    few = pd.concat([rows[rows.spin > MAGNETIC][:19], rows[rows.spin == 0]])
    assert Magnetism.fit(few) is None
    assert Magnetism.fit(rows[rows.spin > MAGNETIC]) is None
    assert Magnetism.fit(rows.assign(spin=np.nan)) is None


def test_the_sign_of_a_label_does_not_make_it_magnetic():
    rows = moments(2000, 0)
    signed = rows.assign(spin=rows.spin * np.where(np.arange(len(rows)) % 2, 1, -1))
    assert Magnetism.fit(signed) == Magnetism.fit(rows)
