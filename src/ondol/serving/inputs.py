"""What a model takes: how many features, their names and kinds, and where null is allowed.

Everything a client may get wrong about a row is decided here, before the model sees it. Must not know a protocol, nor
import what a model's own environment need not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ondol.base import errors

Kind = Literal["number", "text", "any"]
FLOAT32_MAX = 3.4028234663852886e38
FLOAT64_MAX = 1.7976931348623157e308
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The columns of a model's input."""

    n_features: int
    """0: unknown, any number of columns is taken."""

    names: tuple[str, ...] = ()
    """Column names in order; empty when the model was trained without."""

    kinds: tuple[Kind, ...] = ()
    """One per column; empty: all numbers."""

    nulls: tuple[bool, ...] = ()
    """Per column, whether null is taken; empty: nowhere."""

    frame: bool = False
    """True: the model needs a data frame with the names; False: a float64 matrix."""

    limit: float = FLOAT64_MAX
    """Largest magnitude the model can take (trees work in float32)."""

    outputs: tuple[Json, ...] = ()
    """V2 metadata of the outputs, when known."""

    datatypes: tuple[str, ...] = ()
    """V2's datatype per column, when a signature says it."""

    own_names: bool = False
    """Whether V2 calls the outputs by their own names, as Triton does, and not by those of the service's dialect."""

    @property
    def any_null(self) -> bool:
        return any(self.nulls)

    def kind(self, column: int) -> Kind:
        return self.kinds[column] if self.kinds else "number"

    def datatype(self, column: int) -> str:
        """Return V2's datatype of a column; a column without a signature is text or a float64."""
        if self.datatypes:
            return self.datatypes[column]
        return "BYTES" if self.names and self.kind(column) == "text" else "FP64"

    def takes_null(self, column: int) -> bool:
        return bool(self.nulls) and self.nulls[column]

    def label(self, column: int) -> str:
        """Return a column as people know it."""
        return repr(self.names[column]) if self.names else f"{column}"


def wrong(message: str, field: str, code: str, way_out: str = "") -> errors.InputError:
    """Return the error for a mistake in a request; `field` is its path in the body."""
    return errors.InputError(message, where=field, way_out=way_out, code=code)


def check_row(spec: InputSpec, row: Sequence[Any], path: str) -> None:
    """Check one row given as a list of values in column order.

    :raises InputError: naming the field: INP-202 count, INP-204 type, INP-205 null.
    """
    if spec.n_features and len(row) != spec.n_features:
        raise wrong(f"{len(row)} features, but the model takes {spec.n_features}", path, "INP-202")
    for column, value in enumerate(row):
        check_value(spec, column, value, f"{path}[{column}]")


def check_value(spec: InputSpec, column: int, value: Any, path: str) -> None:
    """Check one value against its column.

    :raises InputError: INP-204 for a wrong type, INP-205 for null where none is taken.
    """
    if value is None:
        if not spec.takes_null(column if spec.nulls else 0):
            raise wrong(f"null, but the model takes no missing values in feature {spec.label(column)}", path, "INP-205")
        return
    if isinstance(value, (list, dict)):
        raise wrong(f"a {_json_type(value)}, but feature {spec.label(column)} is a single value", path, "INP-204")
    kind = spec.kind(column)
    is_number = isinstance(value, (int, float))
    if spec.frame and spec.datatypes and kind == "number":
        _check_datatype(spec, column, value, path)
        if isinstance(value, bool):
            return
    if kind == "number" and (not is_number or isinstance(value, bool)):
        raise wrong(
            f"{value!r} is a {_json_type(value)}, but feature {spec.label(column)} is a number", path, "INP-204"
        )
    if kind == "text" and not isinstance(value, str):
        raise wrong(f"{value!r} is a {_json_type(value)}, but feature {spec.label(column)} is text", path, "INP-204")
    if is_number and not -spec.limit <= value <= spec.limit:
        raise wrong(f"{value!r} is out of the model's range (±{spec.limit:.3g})", path, "INP-204")


def _check_datatype(spec: InputSpec, column: int, value: Any, path: str) -> None:
    """Check a number against the signature's type, as far as the model would not take another."""
    datatype = spec.datatypes[column]
    if datatype == "BOOL":
        fits = isinstance(value, bool) or value in (0, 1)
    else:
        fits = not isinstance(value, bool) and not (
            datatype.startswith("INT") and isinstance(value, float) and not value.is_integer()
        )
    if not fits:
        raise wrong(f"{value!r} is no {datatype}, which feature {spec.label(column)} is", path, "INP-204")


def row_of_mapping(spec: InputSpec, row: Json, path: str) -> list[Any]:
    """Return a row given by names as a list in column order; a column that takes null may be left out.

    :raises InputError: INP-203 for unknown or missing names.
    """
    if not spec.names:
        raise wrong("the model was trained without column names; send a list of values", path, "INP-203")
    unknown = [name for name in row if name not in spec.names]
    if unknown:
        raise wrong(f"unknown feature {unknown[0]!r}; known: {_few(spec.names)}", f"{path}.{unknown[0]}", "INP-203")
    missing = [name for index, name in enumerate(spec.names) if name not in row and not spec.takes_null(index)]
    if missing:
        raise wrong(f"feature {missing[0]!r} is missing", f"{path}.{missing[0]}", "INP-203")
    values = [row.get(name) for name in spec.names]
    for column, value in enumerate(values):
        check_value(spec, column, value, f"{path}.{spec.names[column]}")
    return values


def rows_of(instances: Any, spec: InputSpec, where: str, before: int = 0) -> list[list[Any]]:
    """Return rows given one by one, as lists or by name, checked.

    :param where: the list's path in the body.
    :param before: how many entries of the list came before these.
    :raises InputError: naming the field that is wrong.
    """
    if not isinstance(instances, list):
        raise wrong("must be a list with one entry per row", where, "INP-201")
    if not instances:
        raise wrong("no rows: the list is empty", where, "INP-206")
    rows: list[list[Any]] = []
    for index, instance in enumerate(instances):
        path = f"{where}[{before + index}]"
        if isinstance(instance, dict):
            rows.append(row_of_mapping(spec, instance, path))
            continue
        if not isinstance(instance, list):
            if spec.n_features != 1:
                raise wrong("must be a list of values or an object of named values", path, "INP-201")
            instance = [instance]
        if not instance:
            raise wrong("no features: the row is empty", path, "INP-206")
        if rows and not spec.n_features and len(instance) != len(rows[0]):
            raise wrong(f"{len(instance)} features, but the first row has {len(rows[0])}", path, "INP-202")
        check_row(spec, instance, path)
        rows.append(instance)
    return rows


def _few(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _json_type(value: object) -> str:
    names = {bool: "boolean", str: "string", list: "list", dict: "object", type(None): "null"}
    return names.get(type(value), "number")
