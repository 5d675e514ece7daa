"""`ondol data log` and `ondol data label`: look at, export and label what a service was asked."""

from __future__ import annotations

import csv
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from ondol.base import clock, duration, errors, hashing
from ondol.cli import context as contexts
from ondol.cli import output

if TYPE_CHECKING:
    from ondol.records.rollout import Observation

_FILE = click.Path(path_type=Path)
_BATCH = 1000  # labels per transaction


@click.command()
@click.argument("service")
@click.option("--since", default="1h", show_default=True, help="How far back: 30m, 12h, 7d.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000_000), help="The newest N.")
@click.option("--labelled", is_flag=True, help="Only requests whose truth has arrived.")
@click.option(
    "--export", "target", type=_FILE, help="Write all of them as .parquet or .csv instead, features as columns."
)
@output.json_option
def log(service: str, since: str, limit: int, labelled: bool, target: Path | None, as_json: bool) -> None:
    """Show what SERVICE was asked and answered, from the database and the files that older requests were moved to.

    \b
    Examples:
      ondol data log flights --since 7d --labelled
      ondol data log flights --since 30d --export flights.parquet
    """
    from ondol.monitoring.request_archive import Archive
    from ondol.store.blobs import Blobs

    settings = contexts.load_settings()
    with contexts.open_store(settings) as store:
        found = Archive(store, Blobs(settings.blobs)).read(service, time.time() - duration.seconds(since, "--since"))
        rows = [one for one in found if one.label or not labelled]
    if target is not None:
        _export(rows, target)
        output.emit(
            {"file": str(target), "requests": len(rows)}, as_json, lambda: print(f"wrote {len(rows):,} requests")
        )
        return
    rows = rows[-limit:]
    columns = ("id", "at", "release", "arm", "status", "ms", "prediction", "label")
    table = [
        (one.id, clock.iso(one.at), hashing.short(one.release), one.arm, one.status, f"{one.latency_ms:.1f}",
         one.prediction[:40], one.label or "-")
        for one in rows
    ]  # fmt: skip
    output.emit(rows, as_json, lambda: output.table(columns, table, empty=f"{service} was asked nothing in {since}"))


def _export(rows: list[Observation], target: Path) -> None:
    """Write one line per request; features that are an object, or a list of one, become columns."""
    import pandas as pd

    if target.suffix not in (".parquet", ".csv"):
        raise errors.UsageError(f"{target.name!r} is neither .parquet nor .csv", where="--export")
    frame = pd.DataFrame([_flat(one) for one in rows])
    if target.suffix == ".csv":
        frame.to_csv(target, index=False)
    else:
        frame.to_parquet(target, index=False)


def _flat(one: Observation) -> dict[str, Any]:
    features = json.loads(one.features) if one.features else {}
    if isinstance(features, list) and len(features) == 1:
        features = features[0]
    if isinstance(features, list):
        features = {f"f{index}": value for index, value in enumerate(features)}
    plain = {name: value for name, value in (features or {}).items() if not isinstance(value, (dict, list))}
    return {
        "request": one.id, "at": one.at, "release": one.release, "arm": one.arm, "unit": one.unit,
        "status": one.status, "latency_ms": one.latency_ms, **plain, "prediction": one.prediction, "label": one.label,
    }  # fmt: skip


@click.command()
@click.argument("file", required=False, type=_FILE)
@click.option("--stdin", "from_stdin", is_flag=True, help="Read JSON lines from standard input.")
@click.option("--id", "id_column", default="id", show_default=True, help="Column with the request id.")
@click.option("--label", "label_column", default="label", show_default=True, help="Column with the truth.")
@output.json_option
def label(file: Path | None, from_stdin: bool, id_column: str, label_column: str, as_json: bool) -> None:
    """Join ground truth to requests by id, from a .csv, .parquet or .jsonl FILE; a request's first label stays.

    Sent again, nothing changes. A label may come before its request is logged.

    \b
    Examples:
      ondol data label october.csv --id request --label late
      cat labels.jsonl | ondol data label --stdin
    """
    from ondol.store import observations

    if (file is None) != from_stdin:
        raise errors.UsageError("give a FILE or --stdin", where="ondol data label")
    pairs = _pairs(file, id_column, label_column)
    received = new = 0
    with contexts.open_store(contexts.load_settings()) as store:
        while batch := dict(itertools.islice(pairs, _BATCH)):
            received += len(batch)
            new += observations.label(store, batch)
    output.emit({"received": received, "new": new}, as_json, lambda: print(f"{received:,} labels, {new:,} of them new"))


def _pairs(file: Path | None, id_column: str, label_column: str) -> Iterator[tuple[str, str]]:
    """Yield request ids and labels as JSON text.

    :raises InputError: INP-456 naming the row that has no id or no label.
    """
    where = "standard input" if file is None else str(file)
    for number, row in enumerate(_rows(file), 1):
        identifier, value = row.get(id_column), row.get(label_column)
        if identifier in (None, "") or value in (None, ""):
            missing = id_column if identifier in (None, "") else label_column
            raise errors.InputError(
                f"row {number} has no {missing!r}", where=where,
                way_out="Name the columns with --id and --label.", code="INP-456",
            )  # fmt: skip
        yield str(identifier), json.dumps(value)


def _rows(file: Path | None) -> Iterator[dict[str, Any]]:
    if file is None:
        yield from _json_lines(sys.stdin, "standard input")
    elif file.suffix == ".parquet":
        from ondol.data import tables

        yield from ({str(key): value for key, value in row.items()} for row in tables.read(file).to_dict("records"))
    else:
        try:
            with file.open(encoding="utf-8-sig", newline="") as opened:
                if file.suffix == ".csv":
                    yield from ({**row, **_numbers(row)} for row in csv.DictReader(opened))
                else:
                    yield from _json_lines(opened, str(file))
        except FileNotFoundError:
            raise errors.InputError(f"no file {str(file)!r}", code="INP-456") from None


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """Read what looks like JSON in a CSV as that: `1` is a number, `late` stays a text."""
    found = {}
    for key, value in row.items():
        try:
            found[key] = json.loads(value)
        except (TypeError, ValueError):
            continue
    return {key: value for key, value in found.items() if isinstance(value, (int, float, bool))}


def _json_lines(lines: TextIO, where: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise errors.InputError(f"line {number} is no JSON object", where=where, code="INP-456")
        yield row
