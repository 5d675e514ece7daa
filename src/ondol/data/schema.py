"""What a table should be: the schema file of `ondol data check`, read strictly, written, and inferred from a table.

Must not look at data except to infer a first schema, which the reader is meant to edit.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from ondol.base import errors
from ondol.records import codec

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["integer", "number", "boolean", "category", "text", "datetime"]
Severity = Literal["warn", "fail"]

_CATEGORIES = 50  # a text column with at most this many values, each seen twice on average, is a category
_MIN_SCALE = 20  # fewer rows say nothing about ranges and uniqueness


@dataclass(frozen=True, slots=True)
class Column:
    """What one column should be."""

    type: Kind
    nulls: float = 0.0
    """Share of empty cells that is accepted, 0 to 1."""

    min: float | None = None
    max: float | None = None
    outside: float = 0.0
    """Share of values outside `min` and `max` that is accepted."""

    values: tuple[str | int | float | bool, ...] = ()
    """The values a category may have; empty: any."""

    unknown: float = 0.0
    """Share of values not in `values` that is accepted."""

    unique: bool = False
    required: bool = True
    severity: Severity = "fail"
    """What a finding about this column amounts to."""

    description: str = ""
    """For people: what it is, why it may be empty. Shown beside findings."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """The newest row may not be older than this."""

    column: str
    within_days: float
    as_of: str = ""
    """The moment to measure from (ISO 8601); empty: now."""

    severity: Severity = "fail"


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows there should be."""

    min: int = 1
    max: int | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """What a table should be."""

    columns: dict[str, Column]
    rows: Rows = Rows()
    unique: tuple[tuple[str, ...], ...] = ()
    """Groups of columns whose values together name a row."""

    freshness: Freshness | None = None
    extra: Literal["allow", "warn", "fail"] = "warn"
    """What a column that the schema does not name amounts to."""

    name: str = ""
    description: str = field(default="")


def load(path: Path) -> Schema:
    """Read a schema file.

    :raises NotFoundError: when there is none.
    :raises InputError: naming the field that is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise errors.NotFoundError(
            f"no schema {str(path)!r}", way_out="`ondol data check FILE --infer` writes a first one.", code="NOF-022"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InputError(f"cannot read the schema {str(path)!r}: {error}", code="INP-040") from error
    return parse(text, where=str(path))


def parse(text: str, where: str = "schema") -> Schema:
    """Read the text of a schema.

    :raises InputError: naming the line or the field that is wrong.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise errors.InputError(f"not YAML: {error}", where=where, code="INP-040") from error
    if not isinstance(value, dict) or not isinstance(value.get("columns"), dict) or not value["columns"]:
        raise errors.InputError(
            "a schema is a mapping with `columns`",
            where=where,
            way_out="`ondol data check FILE --infer` writes a first one.",
            code="INP-040",
        )
    _refuse_unknown(value, Schema, "", where)
    for name, column in value["columns"].items():
        _refuse_unknown(column, Column, f"columns.{name}", where)
    for name, kind in (("rows", Rows), ("freshness", Freshness)):
        if name in value:
            _refuse_unknown(value[name], kind, name, where)
    value = {**value, "columns": {str(name): column for name, column in value["columns"].items()}}
    try:
        schema = codec.typed(value, Schema)
    except errors.InputError as error:
        raise errors.InputError(error.message, where=where, code="INP-041") from error
    _refuse_nonsense(schema, where)
    return schema


def dump(schema: Schema, head: str = "") -> str:
    """Return the schema as the text of a file; defaults are left out. `parse(dump(x)) == x`."""
    value = _without_defaults(schema)
    value["columns"] = {name: _without_defaults(column) for name, column in schema.columns.items()}
    for name in ("rows", "freshness"):
        if name in value:
            value[name] = _without_defaults(value[name])
    plain = json.loads(codec.encode(value))  # tuples become lists
    return head + yaml_of(plain)


def yaml_of(value: Any, *, flow: bool | None = None, width: int = 100) -> str:
    """Return plain values as YAML that people can read, Korean included, and that reads back the same."""
    for readable in (True, False):  # PyYAML writes a few control characters bare, and reads them as line ends
        text: str = yaml.dump(value, allow_unicode=readable, sort_keys=False, default_flow_style=flow, width=width)
        if yaml.safe_load(text) == value:
            return text
    return text


def infer(frame: pd.DataFrame) -> Schema:
    """Return a first schema: the types and values seen, with room for what the next table may reasonably bring."""
    return Schema(
        columns={str(name): _infer_column(frame[name]) for name in frame.columns},
        rows=Rows(min=max(1, len(frame) // 10)),
    )


def kind_of(column: pd.Series[Any]) -> Kind:
    """Return the kind of a column's values; text that is all dates is `datetime`."""
    from pandas.api import types

    present = column.dropna()
    if types.is_bool_dtype(present) and len(present):
        return "boolean"
    if types.is_datetime64_any_dtype(column):
        return "datetime"
    if types.is_numeric_dtype(column):
        return "integer" if len(present) and bool((present % 1 == 0).all()) else "number"
    texts = present.astype(str)
    if len(texts) and texts.str.match(r"\d{4}-\d\d-\d\d").all() and bool(_dates(texts).notna().all()):
        return "datetime"
    distinct = texts.nunique()
    return "category" if distinct <= _CATEGORIES and distinct * 2 <= max(len(texts), 1) else "text"


def _dates(texts: pd.Series[Any]) -> pd.Series[Any]:
    import pandas as pd

    return pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601")


def _infer_column(column: pd.Series[Any]) -> Column:
    kind = kind_of(column)
    missing = float(column.isna().mean())
    nulls = 0.0 if missing == 0 else round(min(1.0, missing * 1.5 + 0.01), 3)
    present = column.dropna()
    if kind in ("integer", "number") and len(present) >= _MIN_SCALE:
        if kind == "integer" and bool((present.diff().dropna() > 0).all()):
            return Column(kind, nulls)  # a running number: the next table's are higher
        low, high = float(present.min()), float(present.max())
        room = (high - low) * 0.25
        floor = 0.0 if low >= 0 else low - room
        return Column(kind, nulls, min=_rounded(max(low - room, floor)), max=_rounded(high + room), outside=0.01)
    if kind == "category":
        # not .unique(): pandas takes two strings for one that differ only behind a NUL
        return Column(kind, nulls, values=tuple(sorted(set(present.astype(str)))), unknown=0.01)
    unique = kind == "text" and len(present) >= _MIN_SCALE and bool(present.is_unique)
    return Column(kind, nulls, unique=unique)


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


def _without_defaults(record: Any) -> dict[str, Any]:
    kept = {}
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        if item.default is dataclasses.MISSING or value != item.default:
            kept[item.name] = value
    return kept


def _refuse_unknown(value: Any, kind: type, path: str, where: str) -> None:
    known = {item.name for item in dataclasses.fields(kind)}
    if not isinstance(value, dict):
        raise errors.InputError(f"{path or 'the schema'} is not a mapping", where=where, code="INP-041")
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise errors.UnsupportedError(
                f"unknown key {f'{path}.{key}'.lstrip('.')!r}",
                where=where,
                way_out=f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(sorted(known))}.",
                code="UNS-011",
            )


def _refuse_nonsense(schema: Schema, where: str) -> None:
    for name, column in schema.columns.items():
        for share in ("nulls", "outside", "unknown"):
            if not 0 <= getattr(column, share) <= 1:
                raise errors.InputError(
                    f"columns.{name}.{share} is {getattr(column, share)!r}, not a share between 0 and 1",
                    where=where,
                    code="INP-041",
                )
        if column.min is not None and column.max is not None and column.min > column.max:
            raise errors.InputError(f"columns.{name}: min is above max", where=where, code="INP-041")
    named = [column for group in schema.unique for column in group]
    if schema.freshness:
        named.append(schema.freshness.column)
    for column_name in named:
        if column_name not in schema.columns:
            raise errors.InputError(
                f"{column_name!r} is used by `unique` or `freshness` and not described in `columns`",
                where=where,
                code="INP-041",
            )
