"""Compare a table with its schema: what is missing, empty, of another type, out of range, unknown, doubled or old.

Must not change the table, and must not stop at the first finding: a report names them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from ondol.base import clock as clocks
from ondol.base import errors
from ondol.data import tables
from ondol.data.schema import Column, Freshness, Schema, Severity

if TYPE_CHECKING:
    import pandas as pd

Grade = Literal["pass", "warn", "fail"]
_RANK: dict[Grade, int] = {"pass": 0, "warn": 1, "fail": 2}
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    column: str
    """Empty: the table as a whole."""

    check: str
    """`present`, `type`, `nulls`, `range`, `values`, `unique`, `freshness`, `rows` or `extra`."""

    severity: Grade
    message: str
    count: int = 0
    """Rows that are concerned."""

    share: float = 0.0
    """The same as a share of the rows."""

    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """Everything that was checked, good or bad."""

    rows: int
    columns: int
    findings: tuple[Finding, ...]
    verdict: Grade
    """The worst severity among the findings."""

    notes: tuple[str, ...] = ()
    """What had to be guessed to read the file."""

    def worse_than(self, grade: Grade) -> tuple[Finding, ...]:
        """Return the findings above a grade, worst first."""
        chosen = [finding for finding in self.findings if _RANK[finding.severity] > _RANK[grade]]
        return tuple(sorted(chosen, key=lambda finding: -_RANK[finding.severity]))


def check(frame: pd.DataFrame, schema: Schema, *, clock: clocks.Clock = clocks.SYSTEM) -> ValidationReport:
    """Return the report of a table against its schema. Never raises for what the table contains."""
    present = {str(name): name for name in frame.columns}
    findings = [_rows(frame, schema)]
    for name, column in schema.columns.items():
        if name not in present:
            findings.append(_absent(name, column, [other for other in present if other not in schema.columns]))
        else:
            findings.extend(_column(name, column, frame[present[name]]))
    findings.extend(_extras(present, schema))
    findings.extend(
        _unique(", ".join(group), frame[[present[name] for name in group]], "fail")
        for group in schema.unique
        if all(name in present for name in group)
    )
    if schema.freshness and schema.freshness.column in present:
        findings.append(_fresh(schema.freshness, frame[present[schema.freshness.column]], clock))
    verdict = max((finding.severity for finding in findings), key=lambda grade: _RANK[grade])
    notes = tuple(str(note) for note in frame.attrs.get("notes", ()))
    return ValidationReport(len(frame), len(frame.columns), tuple(findings), verdict, notes)


def refuse_failed(report: ValidationReport, where: str = "") -> None:
    """Stop here unless the report passed.

    :raises InputError: with the worst findings.
    """
    if report.verdict == "fail":
        worst = [f"{finding.column}: {finding.message}".lstrip(": ") for finding in report.worse_than("warn")]
        raise errors.InputError(
            "the data check failed: " + "; ".join(worst[:3]) + (" …" if len(worst) > 3 else ""),
            where=where,
            way_out="`ondol data check FILE --schema SCHEMA` prints everything; mend the data or the schema.",
            code="INP-042",
        )


def _rows(frame: pd.DataFrame, schema: Schema) -> Finding:
    low, high = schema.rows.min, schema.rows.max
    wrong = len(frame) < low or (high is not None and len(frame) > high)
    expected = f"at least {low:,}" + (f" and at most {high:,}" if high is not None else "")
    return Finding("", "rows", "fail" if wrong else "pass", f"{len(frame):,} rows, {expected} expected", len(frame))


def _absent(name: str, column: Column, others: list[str]) -> Finding:
    near = get_close_matches(name, others, n=1, cutoff=0.5)
    hint = f"; there is {near[0]!r}, which the schema does not know" if near else ""
    grade: Grade = column.severity if column.required else "pass"
    return Finding(name, "present", grade, f"no column {name!r}{hint}")


def _extras(present: dict[str, Any], schema: Schema) -> Iterator[Finding]:
    if schema.extra != "allow":
        for name in present:
            if name not in schema.columns:
                yield Finding(name, "extra", schema.extra, "the schema does not know this column")


def _column(name: str, column: Column, values: pd.Series[Any]) -> Iterator[Finding]:
    yield _nulls(name, column, values)
    converted, strange = _converted(column, values)
    if strange.any():
        text = f"{int(strange.sum()):,} values are not of type {column.type}"
        yield _finding(name, "type", column.severity, text, values, strange)
    else:
        yield Finding(name, "type", "pass", f"every value is of type {column.type}")
    if column.min is not None or column.max is not None:
        yield _range(name, column, converted)
    if column.values:
        yield _values(name, column, values)
    if column.unique:
        yield _unique(name, values[values.notna()].to_frame(), column.severity)


def _nulls(name: str, column: Column, values: pd.Series[Any]) -> Finding:
    missing = values.isna()
    share = float(missing.mean()) if len(values) else 0.0
    because = f": {column.description}" if column.description and share else ""
    text = f"{int(missing.sum()):,} of {len(values):,} empty ({share:.1%}), up to {column.nulls:.1%} accepted{because}"
    return Finding(name, "nulls", column.severity if share > column.nulls else "pass", text, int(missing.sum()), share)


def _converted(column: Column, values: pd.Series[Any]) -> tuple[pd.Series[Any], pd.Series[Any]]:
    """Return the values as the column's type, and which present ones are not of that type."""
    import pandas as pd
    from pandas.api import types

    present = values.notna()
    if column.type in ("integer", "number"):
        numbers = pd.to_numeric(values, errors="coerce")
        if types.is_bool_dtype(values.dropna()):
            return numbers, present
        strange = present & numbers.isna()
        if column.type == "integer":
            strange |= numbers.notna() & (numbers % 1 != 0)
        return numbers, strange
    if column.type == "boolean":
        allowed = values.astype(str).str.lower().isin({"true", "false", "0", "1", "0.0", "1.0"})
        return values, present & ~allowed
    if column.type == "datetime":
        moments = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
        return moments, present & moments.isna()
    return values, present & False  # anything may be text


def _range(name: str, column: Column, numbers: pd.Series[Any]) -> Finding:
    low = float("-inf") if column.min is None else column.min
    high = float("inf") if column.max is None else column.max
    outside = numbers.notna() & ~numbers.between(low, high)
    share = float(outside.mean()) if len(numbers) else 0.0
    count, limit = int(outside.sum()), f"up to {column.outside:.2%} accepted"
    text = f"{count:,} values outside {low:g} to {high:g} ({share:.2%}), {limit}"
    if column.type not in ("integer", "number") or share <= column.outside:
        return Finding(name, "range", "pass", text, count, share)
    return _finding(name, "range", column.severity, text, numbers, outside)


def _values(name: str, column: Column, values: pd.Series[Any]) -> Finding:
    known = {str(value) for value in column.values}
    unknown = values.notna() & ~values.astype(str).isin(known)
    share = float(unknown.mean()) if len(values) else 0.0
    new = tables.shown(values[unknown].astype(str).unique(), 5)
    text = f"{int(unknown.sum()):,} values are new ({share:.2%}), up to {column.unknown:.2%} accepted" + (
        f": {new}" if new else ""
    )
    grade: Grade = column.severity if share > column.unknown else ("warn" if share else "pass")
    return _finding(name, "values", grade, text, values, unknown)


def _unique(name: str, values: pd.DataFrame, severity: Severity) -> Finding:
    doubled = values.duplicated()
    first = [" ".join(map(str, row)) for row in values[doubled].head(_EXAMPLES).itertuples(index=False)]
    count = int(doubled.sum())
    return Finding(
        name,
        "unique",
        severity if count else "pass",
        f"{count:,} rows repeat an earlier one" if count else "no row repeats another",
        count,
        count / max(len(values), 1),
        tuple(first),
    )


def _fresh(freshness: Freshness, values: pd.Series[Any], clock: clocks.Clock) -> Finding:
    import pandas as pd

    moments = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
    moment = freshness.as_of or clocks.iso(clock.now())
    now = pd.to_datetime(moment, errors="coerce", utc=True)
    if pd.isna(now):
        return Finding(freshness.column, "freshness", "fail", f"as_of {moment!r} is no ISO 8601 time")
    if moments.notna().sum() == 0:
        return Finding(freshness.column, "freshness", freshness.severity, "no value is a time")
    newest = moments.max()
    days = (now - newest).total_seconds() / 86_400
    age = f"{days:.1f} days before" if days > 0 else "not older than"
    text = f"the newest is {newest.isoformat()}, {age} {moment}; {freshness.within_days:g} days accepted"
    return Finding(freshness.column, "freshness", freshness.severity if days > freshness.within_days else "pass", text)


def _finding(name: str, kind: str, grade: Grade, text: str, values: pd.Series[Any], rows: pd.Series[Any]) -> Finding:
    examples = tuple(str(value) for value in values[rows].drop_duplicates().head(_EXAMPLES))
    return Finding(name, kind, grade, text, int(rows.sum()), float(rows.mean()) if len(rows) else 0.0, examples)
