"""The flights of a month as requests, in the order they were scheduled: what the demo and the benchmarks replay.

The rows are made by the pipeline's own `load`, `observe` and `join`, so that training and requests cannot differ by
accident. Labels are what became known after landing; a cancelled or diverted flight is asked about and never labelled.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd

# Parameters of the pipeline for the demo's candidates. Nothing here knows how they will be judged.
CANDIDATES = {
    "more trees": {"trees": 100, "learning_rate": 0.05, "feature_share": 0.5},
    "units bug": {"trees": 100, "learning_rate": 0.05, "feature_share": 0.5, "time_unit": "hours"},
    "stale join": {"trees": 100, "learning_rate": 0.05, "feature_share": 0.5, "weather_lag_hours": 24},
}


@dataclass(frozen=True)
class Replay:
    """Requests of one month, one per flight; the lists have the same order and length."""

    ids: list[str]
    """Request ids, unique over the year. They are also the sticky units: flights that share an aircraft or a number are
    late together, which would make one coin toss of the traffic split decide over many correlated rows."""

    features: list[str]
    rows: list[list[float]]
    """Finite numbers, in the order of `features`."""

    labels: list[int | None]
    """1: 15 minutes late or more; 0: not; None: never arrived."""

    frame: pd.DataFrame
    """The same with carrier, origin, destination and time, for slices and drift."""


def raw(months: list[int]) -> pd.DataFrame:
    """Return the flights of the months as published, as the data check sees them."""
    pipeline = _pipeline()
    with tempfile.TemporaryDirectory() as folder:
        flights = _artifact(folder, "flights")
        pipeline.load.python_func(train_months=_text(months), test_months="", flights=flights)
        return pd.read_parquet(flights.path)


def table(months: list[int], cache: Path | None = None) -> pd.DataFrame:
    """Return the pipeline's table of the months in time order, kept in `cache` (a folder) for the next time."""
    kept = cache and cache / f"replay-{_digest(months)}.parquet"
    if kept and kept.is_file():
        return pd.read_parquet(kept)
    pipeline = _pipeline()
    with tempfile.TemporaryDirectory() as folder:
        made = {name: _artifact(folder, name) for name in ("flights", "weather", "planes", "table")}
        pipeline.load.python_func(train_months=_text(months), test_months="", flights=made["flights"])
        pipeline.observe.python_func(weather=made["weather"], planes=made["planes"])
        report = SimpleNamespace(log_metric=lambda name, value: None)
        pipeline.join.python_func(**made, report=report, time_unit="minutes", weather_lag_hours=0)
        frame = pd.read_parquet(made["table"].path)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(half := kept.with_suffix(".half"), index=False)
        half.replace(kept)
    return frame


def month(number: int, cache: Path | None = None, limit: int = 0) -> Replay:
    """Return the requests of one month; `limit` thins them evenly over the month, 0: all."""
    frame = table([number], cache)
    if limit and limit < len(frame):
        frame = frame.iloc[[index * len(frame) // limit for index in range(limit)]].reset_index(drop=True)
    numbers = frame.drop(columns=["month", "late"]).select_dtypes("number")
    labels = [None if pd.isna(value) else int(value) for value in frame["late"]]
    return Replay(list(frame["id"]), list(numbers.columns), numbers.to_numpy().tolist(), labels, frame)


def _pipeline() -> ModuleType:
    """Import `pipeline.py` beside this file (2 s, because of kfp), whatever else is called `pipeline` here."""
    known = f"{__name__}.pipeline"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, Path(__file__).with_name("pipeline.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[known] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[known]


def _artifact(folder: str, name: str) -> SimpleNamespace:
    return SimpleNamespace(path=str(Path(folder) / name), metadata={})


def _text(months: list[int]) -> str:
    return ",".join(str(month) for month in months)


def _digest(months: list[int]) -> str:
    source = Path(__file__).with_name("pipeline.py").read_bytes()
    return hashlib.sha256(source + _text(months).encode()).hexdigest()[:16]
