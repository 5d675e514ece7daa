"""`ondol data`: check, profile and compare tables. Thin: the work is in `ondol.data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ondol.base import errors
from ondol.cli import data_log, output

if TYPE_CHECKING:
    from ondol.data.drift import DriftReport
    from ondol.data.profile import Profile
    from ondol.data.validation import ValidationReport

_FILE = click.Path(path_type=Path)
_MARKS = {"pass": "ok", "warn": "warn", "fail": "FAIL"}


@click.group()
def group() -> None:
    """Check, profile and compare data; look at and label what services were asked."""


group.add_command(data_log.log)
group.add_command(data_log.label)


@group.command()
@click.argument("file", type=_FILE)
@click.option("--schema", "schema_file", type=_FILE, help="What the table should be (YAML).")
@click.option("--infer", is_flag=True, help="Write a first schema beside FILE (or to --schema) instead of checking.")
@click.option("--all", "show_all", is_flag=True, help="Show what is well, too.")
@output.json_option
def check(file: Path, schema_file: Path | None, infer: bool, show_all: bool, as_json: bool) -> int:
    """Compare a CSV or Parquet FILE with its schema; exit 1 when it fails.

    Without --schema, `schema.yaml` beside FILE is taken.

    \b
    Examples:
      ondol data check flights.csv --infer
      ondol data check flights.csv --schema schema.yaml
      ondol data check flights.parquet --json
    """
    from ondol.data import schema, tables, validation

    frame = tables.read(file)
    if infer:
        return _infer(file, schema_file, as_json)
    chosen = schema_file or file.with_name("schema.yaml")
    if schema_file is None and not chosen.is_file():
        raise errors.UsageError(
            f"no schema for {file.name!r}",
            where=str(chosen),
            way_out=f"Name one with --schema, or write a first one: ondol data check {file} --infer",
            code="USE-030",
        )
    report = validation.check(frame, schema.load(chosen))
    output.emit(report, as_json, lambda: _show_check(report, file, show_all))
    return 1 if report.verdict == "fail" else 0


@group.command()
@click.argument("file", type=_FILE)
@click.option("--html", type=_FILE, help="Write the profile as one self-contained page.")
@click.option("--target", default="", help="Column to relate the others to.")
@output.json_option
def profile(file: Path, html: Path | None, target: str, as_json: bool) -> None:
    """Describe every column of a CSV or Parquet FILE.

    \b
    Examples:
      ondol data profile flights.csv
      ondol data profile flights.csv --html profile.html
    """
    from ondol.data import profile as profiles
    from ondol.data import profile_page, tables

    made = profiles.profile(tables.read(file), name=file.name, target=target)
    if html is not None:
        html.write_text(profile_page.render(made), encoding="utf-8")
    output.emit(made, as_json, lambda: _show_profile(made, html))


@group.command()
@click.argument("reference", type=_FILE)
@click.argument("current", type=_FILE)
@click.option("--columns", default="", help="Only these columns, separated by commas.")
@click.option("--prediction", default="", help="Column that holds the model's predictions.")
@click.option("--block", default="", help="Column whose values (days, users …) vary together, for honest p-values.")
@click.option("--alpha", default=0.01, show_default=True, help="False discovery rate over all columns.")
@click.option("--effect", default=0.1, show_default=True, help="Smallest difference of distributions that matters.")
@output.json_option
def drift(
    reference: Path,
    current: Path,
    columns: str,
    prediction: str,
    block: str,
    alpha: float,
    effect: float,
    as_json: bool,
) -> int:
    """Compare two tables column by column; exit 1 when something has drifted.

    \b
    Examples:
      ondol data drift january.csv june.csv
      ondol data drift january.csv june.csv --columns temp,humid --block day
    """
    from ondol.data import drift as drifts
    from ondol.data import tables

    report = drifts.compare(
        tables.read(reference),
        tables.read(current),
        columns=[name.strip() for name in columns.split(",") if name.strip()] or None,
        prediction=prediction,
        options=drifts.Options(alpha=alpha, effect=effect, block=block),
    )
    output.emit(report, as_json, lambda: _show_drift(report))
    return 1 if report.drifted else 0


def _infer(file: Path, schema_file: Path | None, as_json: bool) -> int:
    from ondol.data import schema, tables

    target = schema_file or file.with_name("schema.yaml")
    if target.exists():
        raise errors.ConflictError(
            f"{str(target)!r} exists already", way_out="Name another file with --schema.", code="CON-030"
        )
    inferred = schema.infer(tables.read(file))
    head = f"# Inferred from {file.name}: edit it. Ranges leave room for the next table.\n"
    target.write_text(schema.dump(inferred, head), encoding="utf-8")
    output.emit({"schema": str(target), "columns": len(inferred.columns)}, as_json, lambda: print(f"wrote {target}"))
    return 0


def _show_check(report: ValidationReport, file: Path, show_all: bool) -> None:
    for note in report.notes:
        print(f"note: {note}")
    notable = [
        finding
        for finding in report.findings
        if show_all or finding.severity != "pass" or (finding.check == "nulls" and finding.count)
    ]
    rows = [
        (
            _MARKS[finding.severity],
            finding.column or "(table)",
            finding.check,
            finding.message + (f"; e.g. {', '.join(finding.examples)}" if finding.examples else ""),
        )
        for finding in notable
    ]
    output.table(("", "column", "check", "finding"), rows, empty="every check passed")
    failed, warned = (sum(one.severity == grade for one in report.findings) for grade in ("fail", "warn"))
    print(
        f"{report.verdict}: {file.name}, {report.rows:,} rows, {report.columns} columns, "
        f"{len(report.findings)} checks, {failed} failed, {warned} warnings"
    )


def _show_profile(made: Profile, html: Path | None) -> None:
    rows = [
        (one.name, one.kind, f"{one.nulls / max(made.rows, 1):.1%}", one.distinct, one.summary())
        for one in made.columns
    ]
    title = f"{made.name}: {made.rows:,} rows"
    output.table(("column", "kind", "empty", "distinct", "values"), rows, title=title)
    for note in made.notes:
        print(f"note: {note}")
    if html is not None:
        print(f"wrote {html}")


def _show_drift(report: DriftReport) -> None:
    rows = [
        ("DRIFT" if one.drifted else "", one.column, one.test, one.effect, f"{one.q_value:.2g}", one.change)
        for one in report.columns
    ]
    output.table(("", "column", "test", "effect", "q", "change"), rows)
    print(report.summary)
