"""Drift: silent when nothing changed, however many rows; found and named when something did."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ondol.base import errors
from ondol.data import drift


def rows(count: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(0, 1, (count, 8)), columns=[f"x{index}" for index in range(8)])
    frame["x0"] += shift
    frame["지역"] = random.choice(["서울", "부산", "대구"], count, p=[0.5, 0.3, 0.2])
    frame["p"] = random.beta(2, 5, count)
    frame["half"] = np.where(random.random(count) < 0.5, np.nan, 1.0)
    return frame


def blocks(days: int, seed: int, per_day: int = 40, shift: float = 0.0) -> pd.DataFrame:
    """Rows of one day share their weather: far fewer independent values than rows."""
    random = np.random.default_rng(seed)
    weather = np.repeat(random.normal(shift, 1, days), per_day)
    day = np.repeat([f"d{seed}-{number}" for number in range(days)], per_day)
    return pd.DataFrame({"day": day, "temp": weather + random.normal(0, 0.1, len(day))})


def test_a_shift_is_found_named_and_put_first() -> None:
    report = drift.compare(rows(4000, 0), rows(4000, 1, shift=0.5))
    assert report.drifted
    assert report.names() == ("x0",)
    first = report.columns[0]
    assert (first.column, first.test, first.drifted) == ("x0", "KS", True)
    assert "1 of 11 columns have drifted: x0" in report.summary


def test_numbers_agree_with_scipy() -> None:
    a, b = rows(3000, 2), rows(2500, 3, shift=0.1)
    (one,) = [column for column in drift.compare(a, b, columns=["x0"]).columns if column.column == "x0"]
    theirs = stats.ks_2samp(a["x0"], b["x0"], method="asymp")
    assert one.effect == pytest.approx(theirs.statistic, abs=1e-12)
    assert one.p_value == pytest.approx(theirs.pvalue, rel=0.15)


def test_categories_agree_with_scipy() -> None:
    a, b = rows(3000, 4), rows(3000, 5)
    b.loc[:400, "지역"] = "대전"
    (one,) = drift.compare(a, b, columns=["지역"]).columns
    counts = pd.crosstab(pd.concat([a["지역"], b["지역"]]).to_numpy(), np.repeat([0, 1], 3000))
    assert one.p_value == pytest.approx(stats.chi2_contingency(counts, correction=False).pvalue, abs=1e-12)
    assert one.drifted
    assert "대전 0.0% → 13.4%" in one.change


def test_many_rows_do_not_make_a_trifle_drift() -> None:
    report = drift.compare(rows(100_000, 6), rows(100_000, 7, shift=0.05))
    shifted = next(column for column in report.columns if column.column == "x0")
    assert shifted.q_value < 1e-6
    assert not report.drifted


def test_stationary_tables_are_seldom_called_drifted() -> None:
    """Small tables, where chance alone makes effects above the least one: the error rate must hold there."""
    alarms = sum(
        drift.compare(rows(150, 2 * seed), rows(150, 2 * seed + 1), options=drift.Options(alpha=0.05)).drifted
        for seed in range(300)
    )
    assert alarms <= 24  # 0.05 expected at most: 15; the 99 % quantile of the binomial is 24


def test_rows_of_one_day_are_not_independent() -> None:
    """Without blocks nearly every comparison of two stationary months is an alarm; with them hardly any."""
    plain = [drift.compare(blocks(30, 2 * s), blocks(30, 2 * s + 1), columns=["temp"]).drifted for s in range(40)]
    options = drift.Options(block="day", alpha=0.05, permutations=199)
    honest = [
        drift.compare(blocks(30, 2 * s), blocks(30, 2 * s + 1), columns=["temp"], options=options).drifted
        for s in range(40)
    ]
    assert sum(plain) > 30
    assert sum(honest) <= 6  # 99 % quantile of the binomial with 40 trials at 0.05
    assert drift.compare(blocks(30, 1), blocks(30, 2, shift=2.0), options=options).drifted


def test_predictions_and_missing_values_drift_too() -> None:
    after = rows(3000, 9)
    after["p"] = np.random.default_rng(0).beta(4, 4, 3000)
    after["half"] = np.where(np.random.default_rng(1).random(3000) < 0.9, np.nan, 1.0)
    report = drift.compare(rows(3000, 8), after, prediction="p")
    hit = {(column.column, column.role, column.kind) for column in report.columns if column.drifted}
    assert hit == {("p", "prediction", "number"), ("half", "feature", "missing")}


def test_what_cannot_be_compared_is_said() -> None:
    a, b = rows(100, 0), rows(100, 1).drop(columns=["x1"]).assign(new=1)
    report = drift.compare(a, b)
    assert "x1: not in the current table" in report.skipped
    assert "new: not in the reference" in report.skipped
    with pytest.raises(errors.InputError, match="no column 'x1'"):
        drift.compare(a, b, columns=["x1"])
    with pytest.raises(errors.InputError, match="12 rows"):
        drift.compare(a, b.head(12))
    with pytest.raises(errors.InputError, match="blocks need 5"):
        drift.compare(a.assign(day=1), b.assign(day=2), options=drift.Options(block="day"))


def test_empty_and_constant_columns_do_no_harm() -> None:
    frame = pd.DataFrame({"none": [None] * 50, "one": [1.0] * 50, "flag": [True] * 50, "inf": [np.inf] * 50})
    report = drift.compare(frame, frame)
    assert not report.drifted
    assert "none: fewer than 30 values" in report.skipped


def test_correction_is_benjamini_hochberg() -> None:
    p = [0.01, 0.04, 0.03, 0.005, 0.9]
    assert drift.benjamini_hochberg(p) == pytest.approx(list(stats.false_discovery_control(p)))
    assert drift.benjamini_hochberg([]) == []
