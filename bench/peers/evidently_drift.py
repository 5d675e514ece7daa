"""Compares pairs of tables with Evidently, in its own environment: `python evidently_drift.py FOLDER`.

FOLDER holds `N.reference.parquet` and `N.current.parquet`. Prints one JSON object: name to whether any column drifted,
whether the data set did (half of the columns, Evidently's default), and the seconds it took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd


def compare(reference: pd.DataFrame, current: pd.DataFrame) -> dict[str, Any]:
    """Run the drift preset with its defaults on all columns."""
    from evidently import Report  # type: ignore[import-not-found]
    from evidently.presets import DataDriftPreset  # type: ignore[import-not-found]

    began = time.perf_counter()
    snapshot = Report([DataDriftPreset()]).run(current, reference)
    seconds = time.perf_counter() - began
    share = next(one["value"] for one in snapshot.dict()["metrics"] if "DriftedColumnsCount" in one["metric_name"])
    return {"any": share["count"] > 0, "dataset": share["share"] >= 0.5, "columns": share["count"], "seconds": seconds}


def main() -> None:
    """Compare every pair of the folder."""
    folder = Path(sys.argv[1])
    found = {}
    for path in sorted(folder.glob("*.reference.parquet")):
        name = path.name.removesuffix(".reference.parquet")
        found[name] = compare(pd.read_parquet(path), pd.read_parquet(folder / f"{name}.current.parquet"))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
