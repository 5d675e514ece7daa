"""MLflow's scoring requests: `dataframe_split`, `dataframe_records`, `instances`, `inputs` as JSON, or a table as CSV.

The formats are the ones of MLflow 2 and 3's model server. Stricter than it: a column the model does not have, a
parameter nobody reads or a record with other columns is refused, where MLflow drops it. Must not know HTTP.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import msgspec

from ondol.serving import inputs
from ondol.serving.inputs import InputSpec

Rows = list[list[Any]]
FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_SPLIT = ("columns", "data", "index")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_decode = msgspec.json.Decoder().decode


def read_json(body: bytes, spec: InputSpec) -> Rows:
    """Return the rows of a JSON request, each a list of values in column order.

    :raises InputError: naming the field that is wrong.
    """
    try:
        request = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise inputs.wrong(f"not valid JSON: {error}", "$", "INP-200") from None
    if not isinstance(request, dict):
        raise inputs.wrong("the body must be a JSON object", "$", "INP-201", f"Send one of {', '.join(FORMATS)}.")
    _check_keys(request)
    (name,) = (one for one in FORMATS if one in request)
    given = request[name]
    if name == "dataframe_split":
        return _split(given, spec)
    if name == "dataframe_records":
        return _records(given, spec)
    if name == "inputs" and isinstance(given, dict):
        return _by_column(given, spec)
    return inputs.rows_of(given, spec, name)


def _check_keys(request: dict[str, Any]) -> None:
    found = [name for name in FORMATS if name in request]
    if len(found) != 1:
        text = f"the body has {' and '.join(repr(name) for name in found) or 'no data'}"
        raise inputs.wrong(text, found[1] if found else "$", "INP-201", f"Send exactly one of {', '.join(FORMATS)}.")
    for name, value in request.items():
        if name == "params" and not value:
            continue
        if name == "params":
            raise inputs.wrong("the model takes no parameters", "params", "INP-375", "Leave params out.")
        if name not in FORMATS:
            raise inputs.wrong(f"unknown field {name!r}", name, "INP-201", f"Send one of {', '.join(FORMATS)}.")


def _split(given: Any, spec: InputSpec) -> Rows:
    where = "dataframe_split"
    if not isinstance(given, dict):
        raise inputs.wrong("must be an object with columns and data", where, "INP-201")
    for name in given:
        if name not in _SPLIT:
            raise inputs.wrong(f"unknown field {name!r}; known: {', '.join(_SPLIT)}", f"{where}.{name}", "INP-201")
    data = given.get("data")
    if not isinstance(data, list):
        raise inputs.wrong("must be a list with one entry per row", f"{where}.data", "INP-201")
    index = given.get("index")
    if index is not None and not (isinstance(index, list) and len(index) == len(data)):
        raise inputs.wrong(f"must have one entry for each of {len(data)} rows", f"{where}.index", "INP-207")
    columns = given.get("columns")
    if columns is None:
        return inputs.rows_of(data, spec, f"{where}.data")
    if not isinstance(columns, list):
        raise inputs.wrong("must be a list of names", f"{where}.columns", "INP-201")
    return _table(columns, data, spec, f"{where}.columns", f"{where}.data")


def _table(columns: Sequence[Any], data: Sequence[Any], spec: InputSpec, names_path: str, path: str) -> Rows:
    """Return rows whose values are in the order of `columns`."""
    if not data:
        raise inputs.wrong("no rows: the table is empty", path, "INP-206")
    for number, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(columns):
            raise inputs.wrong(f"is not one value for each of {len(columns)} columns", f"{path}[{number}]", "INP-207")
    if not spec.names:  # the model knows no names: the order counts, as in a matrix
        return inputs.rows_of(list(data), spec, path)
    names = [str(one) for one in columns]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise inputs.wrong(f"column {twice!r} is there twice", names_path, "INP-203")
    places = _places(names, spec, names_path)
    rows = []
    for number, row in enumerate(data):
        values = [None if place is None else row[place] for place in places]
        inputs.check_row(spec, values, f"{path}[{number}]")
        rows.append(values)
    return rows


def _places(names: list[str], spec: InputSpec, path: str) -> list[int | None]:
    """Return where each of the model's columns is in the table; one that takes null may be left out."""
    unknown = [name for name in names if name not in spec.names]
    if unknown:
        raise inputs.wrong(f"unknown feature {unknown[0]!r}", f"{path}[{names.index(unknown[0])}]", "INP-203")
    missing = [name for index, name in enumerate(spec.names) if name not in names and not spec.takes_null(index)]
    if missing:
        raise inputs.wrong(f"feature {missing[0]!r} is missing", path, "INP-203")
    return [names.index(name) if name in names else None for name in spec.names]


def _records(given: Any, spec: InputSpec) -> Rows:
    where = "dataframe_records"
    if not isinstance(given, list) or any(not isinstance(one, dict) for one in given):
        raise inputs.wrong("must be a list of objects, one per row", where, "INP-201")
    if spec.names or not given:
        return inputs.rows_of(given, spec, where)
    columns = list(given[0])
    for number, one in enumerate(given):
        if list(one) != columns:
            raise inputs.wrong("has other columns than the first record", f"{where}[{number}]", "INP-203")
    return inputs.rows_of([list(one.values()) for one in given], spec, where)


def _by_column(given: dict[str, Any], spec: InputSpec) -> Rows:
    """Return rows given as one list per column."""
    counts = set()
    for name, values in given.items():
        if not isinstance(values, list):
            raise inputs.wrong("must be a list with one value per row", f"inputs.{name}", "INP-201")
        counts.add(len(values))
    if len(counts) != 1:
        raise inputs.wrong(f"the columns have {sorted(counts) or 'no'} rows", "inputs", "INP-207")
    if not spec.names:
        raise inputs.wrong("the model was trained without column names; send rows", "inputs", "INP-203")
    rows = [list(row) for row in zip(*given.values(), strict=True)]
    return _table(list(given), rows, spec, "inputs", "inputs")


def read_csv(body: bytes, spec: InputSpec) -> Rows:
    """Return the rows of a CSV with a header line, as `DataFrame.to_csv(index=False)` writes it.

    :raises InputError: naming the line and column that is wrong.
    """
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise inputs.wrong(f"not a CSV in UTF-8: {error}", "$", "INP-200") from None
    lines = [line for line in lines if line]
    if not lines:
        raise inputs.wrong("no header line: the CSV is empty", "$", "INP-206")
    header, data = lines[0], lines[1:]
    if spec.names and header[0] == "" and spec.names[0] != "":
        raise inputs.wrong("the first column has no name", "header", "INP-203", "Write it with to_csv(index=False).")
    known = {name: column for column, name in enumerate(spec.names)}
    columns = [known.get(name) if known else place for place, name in enumerate(header)]
    # A cell without a header has no column; the table's check refuses its row.
    rows = [[_cell(text, spec, column) for text, column in zip_longest(line, columns[: len(line)])] for line in data]
    return _table(header, rows, spec, "header", "rows")


def _cell(text: str, spec: InputSpec, column: int | None) -> Any:
    """Return a cell in the type of its column; what does not fit stays text and is refused with its place."""
    if text == "":
        return None
    if column is None or (spec.n_features and column >= spec.n_features) or spec.kind(column) != "number":
        return text
    if spec.datatypes and spec.datatypes[column] == "BOOL":
        return _BOOLEANS.get(text.lower(), text)
    try:
        value = float(text)
    except ValueError:
        return text
    return None if value != value else value
