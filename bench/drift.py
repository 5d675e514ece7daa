"""Drift on the real flights: how often it cries wolf, what it sees in the seasons, how long it takes.

No peer is timed: the comparison is with the test most tools use by default, one Kolmogorov-Smirnov test per column at
p < 0.05, on the same tables. Stationary pairs are made by dealing the days of one winter into two piles, so that
nothing but chance differs between them, and every day's weather stays together.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from ondol.data import drift, examples

PAIRS = 60
MONTHS = range(4, 13)


def plain_ks(reference: pd.DataFrame, current: pd.DataFrame, columns: list[str]) -> bool:
    """Say whether any column has p < 0.05: no correction, no least effect, rows taken as independent."""
    report = drift.compare(reference, current, columns=columns)
    return any(one.p_value < 0.05 for one in report.columns)


def main() -> None:
    """Measure, print, and end with one JSON line."""
    flights = examples.module(examples.path("flights"), "replay")
    with tempfile.TemporaryDirectory() as folder:
        frame = flights.table(list(range(1, 13)), Path(folder))
    frame["day"] = frame["id"].str[:8]
    features = list(frame.drop(columns=["month", "late"]).select_dtypes("number"))
    winter = frame[frame["month"] <= 3]
    by_day = drift.Options(block="day", permutations=499)
    alarms = {"KS p<0.05 per column": 0, "rows": 0, "days": 0}
    random = np.random.default_rng(0)
    days = winter["day"].unique()
    for _ in range(PAIRS):
        first = winter["day"].isin(random.permutation(days)[: len(days) // 2])
        a, b = winter[first], winter[~first]
        alarms["KS p<0.05 per column"] += plain_ks(a, b, features)
        alarms["rows"] += drift.compare(a, b, columns=features).drifted
        alarms["days"] += drift.compare(a, b, columns=features, options=by_day).drifted
    for name, count in alarms.items():
        print(f"false alarms on stationary winters, {name:22} {count:3} of {PAIRS}")
    seasons, took = {}, []
    for month in MONTHS:
        began = time.perf_counter()
        report = drift.compare(winter, frame[frame["month"] == month], columns=features, options=by_day)
        took.append(time.perf_counter() - began)
        seasons[month] = list(report.names())
        print(f"month {month:2}: {report.summary}")
    rate = {name: count / PAIRS for name, count in alarms.items()}
    seconds = float(np.median(took))
    print(f"median {seconds * 1000:.0f} ms for {len(features)} columns, {len(winter):,} against about 28,000 rows")
    print(json.dumps({"pairs": PAIRS, "false_alarm_rate": rate, "seasons": seasons, "seconds": round(seconds, 3)}))


if __name__ == "__main__":
    main()
