"""Has this table changed since that one? One test per column, a least difference that matters, and one error rate.

A column has drifted when the difference is both too large to be chance (false discovery rate over all columns) and
large enough to matter: with a million rows everything is significant. Must not decide what follows from drift.

Effects are on one scale, 0 (the same) to 1 (nothing in common):
numbers     Kolmogorov-Smirnov distance, the greatest gap between the two cumulative distributions
categories  total variation, the share of rows that would have to change their value
missing     the difference between the shares of empty cells

p-values are asymptotic (KS, chi-square), which assumes independent rows. Rows of one day or one user are not: with
`block` whole blocks are exchanged between the tables instead (permutation test), which stays honest.
Sources: Benjamini and Hochberg (1995); Smirnov (1948); Phipson and Smyth (2010) for permutation p-values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ondol.base import errors
from ondol.data import tables
from ondol.data.exchanges import Exchanges

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
CELLS = 256  # steps of the cumulative distribution in permutation tests
_RARE = 5.0  # categories expected less often in either table are counted together (Cochran's rule)
MANY = 1000  # distinct texts; more are names of things, not categories
MIN_ROWS = 30
MOST_PERMUTATIONS = 10_000  # a matter of seconds and memory


@dataclass(frozen=True, slots=True)
class Options:
    """When a difference counts as drift."""

    alpha: float = 0.01
    """False discovery rate over all columns."""

    effect: float = 0.1
    """Smaller differences do not matter, however significant."""

    block: str = ""
    """Column whose values name groups of rows that vary together; in both tables."""

    permutations: int = 999
    """At least; more when so many columns are compared that a single one could not stand out otherwise."""

    seed: int = 0


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """How one column differs."""

    column: str
    role: Literal["feature", "prediction"]
    kind: Literal["number", "category", "missing", "embedding"]
    test: str
    effect: float
    p_value: float
    q_value: float
    """p-value corrected for the number of columns."""

    drifted: bool
    change: str
    """For people: from what to what."""

    reference_rows: int
    current_rows: int
    reference_mean: float | None = None
    """Of numbers; the share of empty cells for `missing`."""

    current_mean: float | None = None


@dataclass(frozen=True, slots=True)
class DriftReport:
    """How one table differs from another."""

    columns: tuple[ColumnDrift, ...]
    """Largest effect first."""

    drifted: bool
    """Whether any column has drifted."""

    summary: str
    reference_rows: int
    current_rows: int
    alpha: float
    effect: float
    skipped: tuple[str, ...] = ()
    """Columns that were not compared, with the reason."""

    def names(self) -> tuple[str, ...]:
        """Return the names of the drifted columns, once each, largest effect first."""
        return tuple(dict.fromkeys(one.column for one in self.columns if one.drifted))


@dataclass(frozen=True, slots=True)
class Difference:
    """One column's difference, before anything is corrected for the number of columns."""

    column: str
    kind: Literal["number", "category", "missing"]
    test: str
    effect: float
    p_value: float
    change: str
    means: tuple[float, float] | None = None


def compare(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    *,
    columns: Sequence[str] | None = None,
    prediction: str = "",
    options: Options | None = None,
) -> DriftReport:
    """Compare the columns that both tables have.

    :param columns: only these; None: all that both have.
    :param prediction: the column with the model's predictions, reported as such.
    :raises InputError: for a column that is missing, or a table with fewer than 30 rows.
    """
    options = options or Options()
    _refuse_small(reference, current)
    wanted = [name for name in (*(columns or ()), prediction, options.block) if name]
    tables.need_columns(reference, wanted, where="reference")
    tables.need_columns(current, wanted, where="current")
    names = list(columns) if columns is not None else [str(name) for name in reference.columns]
    if prediction and prediction not in names:
        names.append(prediction)
    skipped: list[str] = []
    options = enough(options, len(names))
    blocks = _Blocks(reference, current, options) if options.block else None
    found: list[Difference] = []
    for name in names:
        if name == options.block:
            continue
        if name not in current.columns:
            skipped.append(f"{name}: not in the current table")
            continue
        found.extend(_differences(name, reference[name], current[name], blocks, skipped))
    skipped.extend(f"{name}: not in the reference" for name in current.columns if name not in reference.columns)
    return report(found, skipped, len(reference), len(current), prediction, options)


def enough(options: Options, columns: int) -> Options:
    """Return options with so many permutations that one of the columns can stand out among all of them.

    A permutation test's smallest p-value is 1 / (permutations + 1).
    """
    least = min(math.ceil(2 * columns / options.alpha), MOST_PERMUTATIONS)
    return replace(options, permutations=max(options.permutations, least))


def report(
    found: list[Difference], skipped: list[str], before: int, after: int, prediction: str, options: Options
) -> DriftReport:
    """Correct the p-values for their number and say which columns have drifted."""
    adjusted = benjamini_hochberg([one.p_value for one in found])
    rows = [
        ColumnDrift(
            one.column,
            "prediction" if one.column == prediction else "feature",
            one.kind,
            one.test,
            one.effect,
            one.p_value,
            q,
            q <= options.alpha and one.effect >= options.effect,
            one.change,
            before,
            after,
            one.means[0] if one.means else None,
            one.means[1] if one.means else None,
        )
        for one, q in zip(found, adjusted, strict=True)
    ]
    rows.sort(key=lambda row: (-row.drifted, -row.effect, row.column))
    hit = list(dict.fromkeys(row.column for row in rows if row.drifted))
    compared = len(dict.fromkeys(row.column for row in rows))
    summary = (
        f"{len(hit)} of {compared} columns have drifted: {tables.shown(hit, 6)}"
        if hit
        else f"no drift in {compared} columns"
    )
    return DriftReport(tuple(rows), bool(hit), summary, before, after, options.alpha, options.effect, tuple(skipped))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number, in their order (step-up, false discovery rate)."""
    if not p_values:
        return []
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return [float(value) for value in corrected]


class _Blocks:
    """Which rows belong together, and the exchanges of whole blocks between the tables."""

    def __init__(self, reference: pd.DataFrame, current: pd.DataFrame, options: Options) -> None:
        import pandas as pd

        first, second = (table[options.block].astype(str) for table in (reference, current))
        codes_first, names_first = pd.factorize(first)
        codes_second, names_second = pd.factorize(second)
        # A block that is in both tables is two blocks: each table's rows are exchanged together.
        self.codes = np.concatenate([codes_first, codes_second + len(names_first)])
        self.count = len(names_first) + len(names_second)
        if min(len(names_first), len(names_second)) < 5:
            raise errors.InputError(
                f"{options.block!r} has {len(names_first)} and {len(names_second)} values; blocks need 5 in each table",
                way_out="Name a column with more values, or leave --block out.",
                code="INP-060",
            )
        self.exchanges = Exchanges(len(names_first), len(names_second), options.permutations, options.seed)

    def p_value(self, cells: NDArray[np.intp], size: int, cumulative: bool) -> float:
        """Return the permutation p-value of the distance between the tables' distributions over `size` cells.

        :param cells: [rows of both tables] cell of each row; negative: the row is left out.
        """
        kept = cells >= 0
        flat = self.codes[kept] * size + cells[kept]
        counts = np.bincount(flat, minlength=self.count * size).reshape(self.count, size).astype(np.float64)
        return self.exchanges.p_value(counts, cumulative)


def _differences(
    name: str, first: pd.Series[Any], second: pd.Series[Any], blocks: _Blocks | None, skipped: list[str]
) -> list[Difference]:
    from pandas.api import types

    found = []
    if bool(first.isna().any()) or bool(second.isna().any()):
        found.append(_missing(name, first, second, blocks))
    if min(int(first.notna().sum()), int(second.notna().sum())) < MIN_ROWS:
        skipped.append(f"{name}: fewer than {MIN_ROWS} values")
        return found
    numeric = all(types.is_numeric_dtype(one) and not types.is_bool_dtype(one) for one in (first, second))
    if numeric:
        found.append(_numbers(name, first, second, blocks))
    elif types.is_datetime64_any_dtype(first) or first.nunique() > MANY:
        skipped.append(f"{name}: names or times, not categories")
    else:
        found.append(_categories(name, first, second, blocks))
    return found


def _numbers(name: str, first: pd.Series[Any], second: pd.Series[Any], blocks: _Blocks | None) -> Difference:
    a = first.to_numpy(dtype=np.float64, na_value=math.nan)
    b = second.to_numpy(dtype=np.float64, na_value=math.nan)
    both = np.concatenate([a, b])
    a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
    steps = np.unique(np.concatenate([a, b]))
    gap = np.searchsorted(a, steps, "right") / len(a) - np.searchsorted(b, steps, "right") / len(b)
    effect = float(np.abs(gap).max())
    if blocks is None:
        p = kolmogorov_smirnov(effect, len(a), len(b))
    else:
        if len(steps) > CELLS:
            steps = np.unique(np.quantile(np.concatenate([a, b]), np.linspace(0, 1, CELLS), method="lower"))
        cells = np.searchsorted(steps, both, "left").astype(np.intp)
        cells[np.isnan(both)] = -1
        p = blocks.p_value(cells, len(steps) + 1, cumulative=True)
    means = (float(a.mean()), float(b.mean()))
    change = f"mean {means[0]:.4g} → {means[1]:.4g}, median {np.median(a):.4g} → {np.median(b):.4g}"
    return Difference(name, "number", "KS" + (" by block" if blocks else ""), effect, p, change, means)


def kolmogorov_smirnov(distance: float, n: int, m: int) -> float:
    """Return the asymptotic two-sided p-value of the two-sample statistic (conservative with ties)."""
    from scipy.special import kolmogorov

    effective = math.sqrt(n * m / (n + m))
    return float(kolmogorov(distance * effective))


def _categories(name: str, first: pd.Series[Any], second: pd.Series[Any], blocks: _Blocks | None) -> Difference:
    import pandas as pd

    both = pd.concat([first, second], ignore_index=True)
    codes, names = pd.factorize(both.where(both.isna(), both.astype(str)))
    cut = len(first)
    size = max(len(names), 1)
    counts = np.stack([np.bincount(part[part >= 0], minlength=size) for part in (codes[:cut], codes[cut:])]).astype(
        np.float64
    )
    shares = counts / counts.sum(axis=1, keepdims=True)
    effect = float(np.abs(shares[0] - shares[1]).sum() / 2)
    p = chi_square(counts) if blocks is None else blocks.p_value(codes.astype(np.intp), size, cumulative=False)
    most = np.argsort(-np.abs(shares[0] - shares[1]))[:2]
    change = ", ".join(f"{names[i]} {shares[0, i]:.1%} → {shares[1, i]:.1%}" for i in most)
    return Difference(name, "category", "chi-square" if blocks is None else "TV by block", effect, p, change)


def chi_square(counts: Floats) -> float:
    """Return the p-value of two sets having the same shares.

    :param counts: rows of each category, shape (2, categories).
    """
    from scipy.special import chdtrc

    pooled = _pooled(counts)
    expected = pooled.sum(axis=1, keepdims=True) * pooled.sum(axis=0) / pooled.sum()
    statistic = float(((pooled - expected) ** 2 / np.maximum(expected, 1e-12)).sum())
    return float(chdtrc(pooled.shape[1] - 1, statistic)) if pooled.shape[1] > 1 else 1.0


def _pooled(counts: Floats) -> Floats:
    """Count rare categories together, so that the chi-square's approximation holds."""
    expected = counts.sum(axis=0) * (counts.sum(axis=1).min() / counts.sum())
    rare = expected < _RARE
    if int(rare.sum()) < 2:
        return counts
    return np.concatenate([counts[:, ~rare], counts[:, rare].sum(axis=1, keepdims=True)], axis=1)


def _missing(name: str, first: pd.Series[Any], second: pd.Series[Any], blocks: _Blocks | None) -> Difference:
    from scipy.special import ndtr

    a, b = first.isna().to_numpy(), second.isna().to_numpy()
    shares = float(a.mean()), float(b.mean())
    effect = abs(shares[0] - shares[1])
    if blocks is None:
        pooled = (a.sum() + b.sum()) / (len(a) + len(b))
        error = math.sqrt(max(float(pooled * (1 - pooled)), 1e-12) * (1 / len(a) + 1 / len(b)))
        p = float(2 * ndtr(-effect / error))
    else:
        p = blocks.p_value(np.concatenate([a, b]).astype(np.intp), 2, cumulative=False)
    test = "shares" if blocks is None else "shares by block"
    return Difference(name, "missing", test, effect, p, f"empty {shares[0]:.1%} → {shares[1]:.1%}", shares)


def _refuse_small(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    for label, table in (("reference", reference), ("current", current)):
        if len(table) < MIN_ROWS:
            raise errors.InputError(
                f"the {label} table has {len(table)} rows; a comparison needs {MIN_ROWS}",
                way_out="Wait for more rows, or compare a longer window.",
                code="INP-061",
            )
