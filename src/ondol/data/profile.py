"""What is in a table: one description per column, and what a careful reader would be told about it.

Must not judge: a profile has notes, a check (`validation`) has findings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ondol.data import schema, tables

if TYPE_CHECKING:
    import pandas as pd

_BINS = 24
_TOP = 10
_SUSPICIOUS = 0.98  # |correlation| with the target from which a column may be the target in disguise


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram or of the most frequent values."""

    label: str
    count: int


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column."""

    name: str
    kind: schema.Kind
    nulls: int
    distinct: int
    mean: float | None = None
    deviation: float | None = None
    quantiles: tuple[float, ...] = ()
    """Of numbers: minimum, 5 %, 25 %, median, 75 %, 95 %, maximum."""

    first: str = ""
    last: str = ""
    """Of times: the earliest and the latest."""

    bars: tuple[Bar, ...] = ()
    """Of numbers and times: a histogram; of categories and texts: the most frequent values."""

    with_target: float | None = None
    """Strength of the relation with the target: |rank correlation|, 0 to 1."""

    def summary(self) -> str:
        """Return the values in one line."""
        if self.quantiles:
            return f"{self.quantiles[0]:g} … median {self.quantiles[3]:g} … {self.quantiles[-1]:g}"
        if self.first:
            return f"{self.first} … {self.last}"
        return ", ".join(f"{bar.label} ({bar.count:,})" for bar in self.bars[:4])


@dataclass(frozen=True, slots=True)
class Profile:
    """A table."""

    name: str
    rows: int
    columns: tuple[ColumnProfile, ...]
    doubled: int
    """Rows that repeat an earlier one entirely."""

    notes: tuple[str, ...] = ()
    target: str = ""


def profile(frame: pd.DataFrame, name: str = "table", target: str = "") -> Profile:
    """Describe every column.

    :raises InputError: when there is no column `target`.
    """
    if target:
        tables.need_columns(frame, [target], where=name)
    truth = _ranks(frame[target]) if target else None
    columns = tuple(_column(str(label), frame[label], None if label == target else truth) for label in frame.columns)
    doubled = int(frame.duplicated().sum())
    notes = [str(note) for note in frame.attrs.get("notes", ())]
    if doubled:
        notes.append(f"{doubled:,} rows repeat an earlier one")
    for column in columns:
        notes.extend(_column_notes(column, len(frame), target))
    return Profile(name, len(frame), columns, doubled, tuple(notes), target)


def _column(name: str, column: pd.Series[Any], truth: pd.Series[Any] | None) -> ColumnProfile:
    kind = schema.kind_of(column)
    present = column.dropna()
    nulls, distinct = int(column.isna().sum()), int(present.nunique())
    relation = _relation(column, truth) if truth is not None else None
    if kind in ("integer", "number") and len(present):
        values = present.to_numpy(dtype=np.float64)
        values = values[np.isfinite(values)]
        if len(values):
            quantiles = tuple(float(q) for q in np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]))
            mean, deviation = float(values.mean()), float(values.std())
            return ColumnProfile(
                name, kind, nulls, distinct, mean, deviation, quantiles, bars=_histogram(values), with_target=relation
            )
    if kind == "datetime" and len(present):
        return _times(name, present, nulls, distinct, relation)
    counts = present.astype(str).value_counts().head(_TOP)
    bars = tuple(Bar(str(label), int(count)) for label, count in counts.items())
    return ColumnProfile(name, kind, nulls, distinct, bars=bars, with_target=relation)


def _times(name: str, present: pd.Series[Any], nulls: int, distinct: int, relation: float | None) -> ColumnProfile:
    import pandas as pd

    moments = pd.to_datetime(present, utc=True, errors="coerce", format="ISO8601").dropna()
    seconds: Any = (moments - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(dtype=np.float64)
    bars = tuple(
        Bar(pd.Timestamp(float(bar.label), unit="s").strftime("%Y-%m-%d %H:%M"), bar.count)
        for bar in _histogram(seconds)
    )
    first, last = moments.min().isoformat(), moments.max().isoformat()
    return ColumnProfile(name, "datetime", nulls, distinct, first=first, last=last, bars=bars, with_target=relation)


def _histogram(values: NDArray[np.float64]) -> tuple[Bar, ...]:
    distinct = np.unique(values)
    if len(distinct) <= _BINS:
        return tuple(Bar(f"{value:g}", int(np.sum(values == value))) for value in distinct)
    counts, edges = np.histogram(values, bins=_BINS)
    return tuple(Bar(repr(float(f"{edge:.10g}")), int(count)) for edge, count in zip(edges, counts, strict=False))


def _ranks(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return numbers as their ranks, anything else as the rank of its text."""
    from pandas.api import types

    values = column if types.is_numeric_dtype(column) else column.where(column.isna(), column.astype(str))
    return values.rank()


def _relation(column: pd.Series[Any], truth: pd.Series[Any]) -> float | None:
    from pandas.api import types

    if types.is_numeric_dtype(column):
        ranks = column.rank()
    else:
        # A category is ordered by what the target does in it, so that the order of its names does not matter.
        ranks = truth.groupby(column.astype(str)).transform("mean").where(column.notna())
        if column.nunique() > len(column) / 5:
            return None  # nearly unique names always "explain" the target
    both = ranks.notna() & truth.notna()
    if int(both.sum()) < 3 or ranks[both].nunique() < 2 or truth[both].nunique() < 2:
        return None
    value = float(np.corrcoef(ranks[both], truth[both])[0, 1])
    return None if math.isnan(value) else abs(value)


def _column_notes(column: ColumnProfile, rows: int, target: str) -> list[str]:
    notes = []
    if column.distinct <= 1 and rows > 1:
        notes.append(f"{column.name}: has only one value")
    if column.nulls > rows / 2:
        notes.append(f"{column.name}: {column.nulls / rows:.0%} empty")
    if column.kind == "text" and column.distinct == rows and rows > 20:
        notes.append(f"{column.name}: every value is different; it names rows and predicts nothing")
    if column.with_target is not None and column.with_target >= _SUSPICIOUS:
        notes.append(f"{column.name}: nearly the same as {target!r}; is it known before the target is?")
    return notes
