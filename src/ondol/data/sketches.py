"""Counts that stand for a table of any length: the same drift tests, without the rows.

A reference decides on the cells of each column: its quantiles, or its categories. Rows are counted by block and cell,
page by page, so memory grows with columns, blocks and cells, never with rows. Sketches of the same cells add up. The
tests are those of `drift` on the cells' numbers in place of the values: effects are theirs, never larger than on the
values themselves, and by 1/256 of the reference smaller at most where its values differ.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ondol.data import drift
from ondol.data.drift import Difference, DriftReport, Options
from ondol.data.exchanges import Exchanges, Floats

if TYPE_CHECKING:
    import pandas as pd

_OTHER = "(other)"


@dataclass(frozen=True, slots=True)
class Cells:
    """How one column is counted; the last cell is for empty ones."""

    column: str
    kind: Literal["number", "category"]
    edges: Floats = field(default_factory=lambda: np.zeros(0))
    """Of numbers: a value is in the first cell whose edge is not below it."""

    names: tuple[str, ...] = ()
    """Of categories; what the reference did not have is counted together."""

    @property
    def count(self) -> int:
        return (len(self.edges) if self.kind == "number" else len(self.names)) + 2

    def of(self, values: pd.Series[Any]) -> NDArray[np.intp]:
        """Return the cell of each value."""
        import pandas as pd

        if self.kind == "number":
            numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=math.nan)
            found = np.searchsorted(self.edges, numbers, "left").astype(np.intp)
            found[np.isnan(numbers)] = self.count - 1
            return found
        codes = pd.Categorical(values.where(values.isna(), values.astype(str)), categories=list(self.names)).codes
        found = codes.astype(np.intp)
        found[found < 0] = self.count - 2
        found[values.isna().to_numpy()] = self.count - 1
        return found


def cells_of(reference: pd.DataFrame) -> tuple[Cells, ...]:
    """Return the cells of every column that can be counted: no times, no texts that name things."""
    from pandas.api import types

    found = []
    for name, values in reference.items():
        kept = values.dropna()
        if len(kept) < drift.MIN_ROWS or types.is_datetime64_any_dtype(kept):
            continue
        if types.is_numeric_dtype(kept) and not types.is_bool_dtype(kept):
            numbers = kept.to_numpy(dtype=np.float64)
            edges = np.unique(np.quantile(numbers, np.linspace(0, 1, drift.CELLS), method="lower"))
            found.append(Cells(str(name), "number", edges))
        elif kept.astype(str).nunique() <= drift.MANY:
            found.append(Cells(str(name), "category", names=tuple(sorted(set(kept.astype(str))))))
    return tuple(found)


class Sketch:
    """How many rows of each block are in each cell of each column.

    :param cells: of the reference.
    :param blocks: consecutive pieces that the rows belong to.
    """

    def __init__(self, cells: Sequence[Cells], blocks: int) -> None:
        self.cells, self.blocks, self.rows = tuple(cells), blocks, 0
        self.counts = [np.zeros((blocks, one.count), dtype=np.int64) for one in self.cells]

    def add(self, frame: pd.DataFrame, block: NDArray[np.intp]) -> None:
        """Count rows.

        :param block: the block of each row, below `blocks`.
        """
        self.rows += len(frame)
        for one, counts in zip(self.cells, self.counts, strict=True):
            flat = block * one.count + one.of(frame[one.column])
            counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)

    def merge(self, other: Sketch) -> None:
        """Add what another sketch of the same cells and blocks has counted."""
        self.rows += other.rows
        for mine, theirs in zip(self.counts, other.counts, strict=True):
            mine += theirs

    def to_bytes(self) -> bytes:
        """Return the counts, without the cells."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {f"c{at}": one for at, one in enumerate(self.counts)}
        np.savez_compressed(buffer, rows=np.array(self.rows), **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, cells: Sequence[Cells], blocks: int) -> Sketch:
        """Return a sketch from its counts and the cells they were counted in."""
        made = cls(cells, blocks)
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            made.rows = int(file["rows"])
            made.counts = [file[f"c{at}"] for at in range(len(made.cells))]
        return made


def of_frame(frame: pd.DataFrame, cells: Sequence[Cells], blocks: int) -> Sketch:
    """Return the sketch of a whole table, cut into consecutive blocks."""
    made = Sketch(cells, blocks)
    made.add(frame, np.arange(len(frame)) * blocks // max(len(frame), 1))
    return made


def compare(reference: Sketch, current: Sketch, prediction: str, options: Options) -> DriftReport:
    """Compare two sketches of the same cells as `drift.compare` compares the tables.

    :param prediction: the column with the model's predictions, reported as such.
    """
    options = drift.enough(options, len(reference.cells))
    exchanges = None
    if reference.blocks > 1:
        exchanges = Exchanges(reference.blocks, current.blocks, options.permutations, options.seed)
    found: list[Difference] = []
    skipped: list[str] = []
    for one, first, second in zip(reference.cells, reference.counts, current.counts, strict=True):
        if first[:, -1].any() or second[:, -1].any():
            found.append(_missing(one, first, second, exchanges))
        if min(first[:, :-1].sum(), second[:, :-1].sum()) < drift.MIN_ROWS:
            skipped.append(f"{one.column}: fewer than {drift.MIN_ROWS} values")
        else:
            found.append(_values(one, first[:, :-1], second[:, :-1], exchanges))
    return drift.report(found, skipped, reference.rows, current.rows, prediction, options)


def _values(cells: Cells, first: NDArray[Any], second: NDArray[Any], exchanges: Exchanges | None) -> Difference:
    totals = np.stack([first.sum(axis=0), second.sum(axis=0)]).astype(np.float64)
    shares = totals / totals.sum(axis=1, keepdims=True)
    gap = shares[0] - shares[1]
    if cells.kind == "number":
        effect = float(np.abs(np.cumsum(gap)).max())
        n, m = (int(one) for one in totals.sum(axis=1))
        p = drift.kolmogorov_smirnov(effect, n, m) if exchanges is None else _p(first, second, exchanges, True)
        last = len(cells.edges) - 1
        middle = [float(cells.edges[min(int(np.searchsorted(np.cumsum(one), 0.5)), last)]) for one in shares]
        change, test = f"median {middle[0]:.4g} → {middle[1]:.4g}", "KS"
    else:
        effect = float(np.abs(gap).sum() / 2)
        seen = totals[:, totals.sum(axis=0) > 0]
        p = drift.chi_square(seen) if exchanges is None else _p(first, second, exchanges, False)
        names = [*cells.names, _OTHER]
        most = np.argsort(-np.abs(gap), kind="stable")[:2]
        change = ", ".join(f"{names[at]} {shares[0, at]:.1%} → {shares[1, at]:.1%}" for at in most)
        test = "TV" if exchanges else "chi-square"
    return Difference(cells.column, cells.kind, test + (" by block" if exchanges else ""), effect, p, change)


def _missing(cells: Cells, first: NDArray[Any], second: NDArray[Any], exchanges: Exchanges | None) -> Difference:
    two = [np.stack([one[:, :-1].sum(axis=1), one[:, -1]], axis=1) for one in (first, second)]
    totals = np.stack([one.sum(axis=0) for one in two]).astype(np.float64)
    shares = totals[:, 1] / totals.sum(axis=1)
    p = drift.chi_square(totals) if exchanges is None else _p(two[0], two[1], exchanges, False)
    change = f"empty {shares[0]:.1%} → {shares[1]:.1%}"
    means = float(shares[0]), float(shares[1])
    test = "shares by block" if exchanges else "shares"
    return Difference(cells.column, "missing", test, abs(means[0] - means[1]), p, change, means)


def _p(first: NDArray[Any], second: NDArray[Any], exchanges: Exchanges, cumulative: bool) -> float:
    return exchanges.p_value(np.concatenate([first, second]).astype(np.float64), cumulative)
