"""Read a table from a CSV or Parquet file, or say in one sentence why that is not possible.

Must not repair silently: what had to be guessed (encoding, delimiter) is noted in `frame.attrs["notes"]`.
"""

from __future__ import annotations

import csv
import difflib
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ondol.base import errors

if TYPE_CHECKING:
    import pandas as pd

_PARQUET = b"PAR1"
_BINARY = {
    b"PK\x03\x04": "a ZIP or Excel file",
    b"\x1f\x8b": "a gzip file",
    b"%PDF": "a PDF",
    b"SQLi": "an SQLite file",
}
_SAMPLE = 64 * 1024  # bytes that delimiter and header are read from
_ENCODINGS = ("utf-8-sig", "cp949")  # Korean Excel writes CP949


def read(path: Path) -> pd.DataFrame:
    """Return the table in a file; the format is recognised by its content, because artifacts have no extension.

    :raises NotFoundError: when there is no such file.
    :raises InputError: when it is empty, of another kind, badly encoded, ragged, or has two columns of one name.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_SAMPLE)
    except FileNotFoundError:
        raise errors.NotFoundError(f"no file {str(path)!r}", way_out=_neighbours(path), code="NOF-021") from None
    except OSError as error:
        raise errors.InputError(
            f"cannot read {str(path)!r}: {error.strerror or error}",
            way_out="Name a CSV or Parquet file.",
            code="INP-030",
        ) from error
    if head.startswith(_PARQUET):
        return _unique_columns(_read_parquet(path), path)
    for magic, kind in _BINARY.items():
        if head.startswith(magic):
            raise errors.InputError(
                f"{path.name!r} is {kind}, not a table we read",
                where=str(path),
                way_out="Save it as CSV (UTF-8) or Parquet.",
                code="INP-030",
            )
    if not head.strip():
        raise errors.InputError(f"{path.name!r} is empty", where=str(path), code="INP-031")
    return _read_csv(path, head)


def need_columns(frame: pd.DataFrame, names: Iterable[str], where: str = "") -> None:
    """Check that the columns are there.

    :raises InputError: naming the first missing column and the nearest name that is there.
    """
    present = [str(name) for name in frame.columns]
    for name in names:
        if name not in present:
            near = difflib.get_close_matches(name, present, n=1, cutoff=0.5)
            raise errors.InputError(
                f"no column {name!r}",
                where=where,
                way_out=f"Did you mean {near[0]!r}?" if near else f"The columns are: {shown(present)}.",
                code="INP-033",
            )


def shown(names: Iterable[object], limit: int = 12) -> str:
    """Return names for a message, not too many."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")


def _read_parquet(path: Path) -> pd.DataFrame:
    import pandas as pd
    from pyarrow import ArrowException

    try:
        return pd.read_parquet(path)
    except (ArrowException, OSError, ValueError) as error:
        raise errors.InputError(
            f"{path.name!r} is a damaged Parquet file: {str(error).splitlines()[0]}",
            where=str(path),
            way_out="Write it again; a copy that was cut off looks like this.",
            code="INP-032",
        ) from error


def _read_csv(path: Path, head: bytes) -> pd.DataFrame:
    import pandas as pd

    encoding = _encoding(path)
    first = head.decode(encoding, errors="ignore")
    delimiter = _delimiter(first)
    _refuse_bad_header(first, delimiter, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)  # mixed columns are the check's business
            frame = pd.read_csv(path, encoding=encoding, sep=delimiter, low_memory=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as error:
        raise errors.InputError(
            f"{path.name!r} is not a regular CSV: {' '.join(str(error).split())}",
            where=str(path),
            way_out="Every line needs as many fields as the header; quote fields that contain the delimiter.",
            code="INP-032",
        ) from error
    if frame.empty:
        raise errors.InputError(f"{path.name!r} has a header and no rows", where=str(path), code="INP-031")
    notes = []
    if encoding != "utf-8-sig":
        notes.append(f"read as {encoding.upper()}, because it is not UTF-8")
    if delimiter != ",":
        notes.append(f"the delimiter is {delimiter!r}")
    frame.attrs["notes"] = notes
    # Whether `pandas.read_csv(path)` without options would give the same table.
    frame.attrs["plain"] = not notes and (delimiter + " ").encode() not in path.read_bytes()
    return frame


def _encoding(path: Path) -> str:
    data = path.read_bytes()
    reason = ""
    for encoding in _ENCODINGS:
        try:
            data.decode(encoding)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            reason = reason or f"byte 0x{data[error.start]:02x} in line {line}"
        else:
            return encoding
    raise errors.InputError(
        f"{path.name!r} is neither UTF-8 nor CP949: {reason}",
        where=str(path),
        way_out="Save it as UTF-8, or as Parquet.",
        code="INP-034",
    )


def _delimiter(text: str) -> str:
    """Return what splits the header into the most fields; a comma when nothing does."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max((",", ";", "\t", "|"), key=lambda mark: (header.count(mark), mark == ","))


def _refuse_bad_header(text: str, delimiter: str, path: Path) -> None:
    lines = [line for line in text.splitlines() if line.strip()]
    names = [name.strip() for name in next(csv.reader(lines[:1], delimiter=delimiter), [])]
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise errors.InputError(
            f"two columns are called {twice[0]!r}", where=f"{path}:1", way_out="Rename one of them.", code="INP-035"
        )
    if names and all(_is_number(name) for name in names):
        raise errors.InputError(
            f"the first line is numbers ({shown(names, 4)}), not column names",
            where=f"{path}:1",
            way_out="Put a header line with the columns' names on top.",
            code="INP-035",
        )


def _unique_columns(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    frame.columns = frame.columns.map(str)
    twice = [str(name) for name in frame.columns[frame.columns.duplicated()]]
    if twice:
        raise errors.InputError(f"two columns are called {twice[0]!r}", where=str(path), code="INP-035")
    if frame.empty:
        raise errors.InputError(f"{path.name!r} has no rows", where=str(path), code="INP-031")
    return frame


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _neighbours(path: Path) -> str:
    folder = path.parent
    names = [item.name for item in folder.iterdir() if item.is_file()] if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    if near:
        return f"Did you mean {str(folder / near[0])!r}?"
    return "Name a CSV or Parquet file." if folder.is_dir() else f"There is no folder {str(folder)!r}."
