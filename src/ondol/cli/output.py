"""How commands speak: tables for people, JSON for programs, errors in three lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
import msgspec

from ondol.base import errors

_UNBOUNDED = 100_000  # columns
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def emit(value: Any, as_json: bool, show: Callable[[], None]) -> None:
    """Print `value` as JSON, or call `show` to print it for people."""
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
    else:
        show()


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    title: str = "",
    empty: str = "nothing",
    *,
    folded: bool = True,
) -> None:
    """Print a table; numbers are right-aligned; `empty` is printed when there are no rows.

    :param folded: whether cells go on in further lines where the terminal is narrow; else every row is one line.
    """
    if not rows:
        print(empty)
        return
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], (int, float)) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row])
    console = Console()
    width = (None if console.is_terminal else 160) if folded else _UNBOUNDED
    Console(width=width).print(drawn, soft_wrap=not folded)


def show_error(error: errors.OndolError, as_json: bool) -> None:
    """Print what is wrong, where, and the way out."""
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(error.to_json()), indent=2).decode() + "\n")
        return
    lines = [f"error[{error.code}]: {error.message}"]
    if error.where:
        lines.append(f"  where:   {error.where}")
    if isinstance(error, errors.ComponentError) and error.details:
        lines.extend("  | " + line for line in error.details.rstrip().splitlines())
    if error.way_out:
        lines.append(f"  way out: {error.way_out}")
    print("\n".join(lines), file=sys.stderr)
