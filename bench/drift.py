"""Drift on the real flights: how often it cries wolf, what it sees in the seasons, how long it takes.

Beside ours: one Kolmogorov-Smirnov test per column at p < 0.05, as many tools do by default, and Evidently's drift
preset with its defaults, in an environment of its own, on the same tables. Stationary pairs are made by dealing the
days of one winter into two piles, so that nothing but chance differs between them, and every day's weather stays
together.
`--quick`: fewer pairs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench.peers import environments

from ondol.data import drift, examples

PAIRS = 60
MONTHS = range(4, 13)
Pairs = dict[str, tuple[pd.DataFrame, pd.DataFrame]]


def plain_ks(reference: pd.DataFrame, current: pd.DataFrame, columns: list[str]) -> bool:
    """Say whether any column has p < 0.05: no correction, no least effect, rows taken as independent."""
    report = drift.compare(reference, current, columns=columns)
    return any(one.p_value < 0.05 for one in report.columns)


def winters(winter: pd.DataFrame, count: int) -> Pairs:
    """Deal the days of the winter into two piles, again and again."""
    random, days = np.random.default_rng(0), winter["day"].unique()
    pairs = {}
    for number in range(count):
        first = winter["day"].isin(random.permutation(days)[: len(days) // 2])
        pairs[f"winter{number:02}"] = (winter[first], winter[~first])
    return pairs


def evidently(pairs: Pairs, columns: list[str]) -> dict[str, dict[str, Any]] | str:
    """Return what Evidently says of each pair, or why it could not be asked."""
    try:
        python = environments.prepare("evidently")
        with tempfile.TemporaryDirectory() as folder:
            for name, tables in pairs.items():
                for part, table in zip(("reference", "current"), tables, strict=True):
                    table[columns].to_parquet(Path(folder) / f"{name}.{part}.parquet", index=False)
            script = Path(__file__).parent / "peers" / "evidently_drift.py"
            done = subprocess.run(
                [str(python), "-W", "ignore", str(script), folder],
                capture_output=True,
                text=True,
                timeout=900,
                check=True,
            )
    except (RuntimeError, subprocess.SubprocessError) as error:
        said = error.stderr.strip()[-300:] if isinstance(error, subprocess.CalledProcessError) else str(error)
        return f"not measured: {said}"
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Measure, print, and end with one JSON line."""
    count = 12 if "--quick" in sys.argv else PAIRS
    flights = examples.module(examples.path("flights"), "replay")
    with tempfile.TemporaryDirectory() as folder:
        frame = flights.table(list(range(1, 13)), Path(folder))
    frame["day"] = frame["id"].str[:8]
    features = list(frame.drop(columns=["month", "late"]).select_dtypes("number"))
    winter = frame[frame["month"] <= 3]
    stationary = winters(winter, count)
    seasonal = {f"month{month:02}": (winter, frame[frame["month"] == month]) for month in MONTHS}
    by_day = drift.Options(block="day", permutations=499)
    alarms = {"KS p<0.05 per column": 0, "ours, rows": 0, "ours, days": 0}
    for a, b in stationary.values():
        alarms["KS p<0.05 per column"] += plain_ks(a, b, features)
        alarms["ours, rows"] += drift.compare(a, b, columns=features).drifted
        alarms["ours, days"] += drift.compare(a, b, columns=features, options=by_day).drifted
    seasons, took = {}, []
    for name, (a, b) in seasonal.items():
        began = time.perf_counter()
        report = drift.compare(a, b, columns=features, options=by_day)
        took.append(time.perf_counter() - began)
        seasons[name] = list(report.names())
        print(f"{name}: {report.summary}")
    seen = {"ours, days": sum(bool(names) for names in seasons.values())}
    milliseconds = {"ours, days": float(np.median(took)) * 1000}
    theirs = evidently({**stationary, **seasonal}, features)
    if isinstance(theirs, str):
        print(f"evidently {theirs}")
    else:
        for kind in ("any", "dataset"):
            label = f"evidently, {kind}"
            alarms[label] = sum(bool(theirs[name][kind]) for name in stationary)
            seen[label] = sum(bool(theirs[name][kind]) for name in seasonal)
        milliseconds["evidently"] = float(np.median([theirs[name]["seconds"] for name in seasonal])) * 1000
    for label, number in alarms.items():
        print(
            f"{label:22} {number:3} false alarms in {count} stationary winters; months seen {seen.get(label, '-')} of 9"
        )
    print(f"median ms for {len(features)} columns, {len(winter):,} against about 28,000 rows: {milliseconds}")
    rate = {label: number / count for label, number in alarms.items()}
    print(
        json.dumps(
            {"pairs": count, "false_alarm_rate": rate, "months_seen": seen, "seasons": seasons, "ms": milliseconds}
        )
    )


if __name__ == "__main__":
    main()
