"""`ondol trace`: what happened in a question, as a tree."""

from __future__ import annotations

from typing import Any

import click

from ondol.base import errors
from ondol.cli import context, output


@click.group()
def group() -> None:
    """Traces of questions (list, show)."""


@group.command(
    "list",
    epilog="""\b
Examples:
  ondol trace list
  ondol trace list --application assistant --limit 50 --json""",
)
@click.option("--application", default="", help="Only traces of one application.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000))
@output.json_option
def list_(application: str, limit: int, as_json: bool) -> None:
    """Show the newest traces."""
    from ondol.base import clock
    from ondol.store import spans

    with context.open_store() as store:
        found = spans.traces(store, application, limit)

    def show() -> None:
        rows = [
            [
                one.trace[:12],
                clock.iso(one.at)[:19],
                one.application or one.name,
                f"{one.milliseconds:.0f} ms",
                one.input_tokens + one.output_tokens,
                _money(one.cost),
                one.error[:40] or one.question[:50],
            ]
            for one in found
        ]
        columns = ["trace", "at (UTC)", "what", "time", "tokens", "cost", "question or error"]
        output.table(columns, rows, empty="No traces yet: `ondol ask` makes one.")

    output.emit(found, as_json, show)


@group.command(
    "show",
    epilog="""\b
Examples:
  ondol trace show
  ondol trace show 4bf92f3577b3
  ondol trace show 4bf92f3577b3 --json""",
)
@click.argument("trace", default="")
@output.json_option
def show(trace: str, as_json: bool) -> None:
    """Show one trace, or the newest, as a tree: times, tokens, cost, the chunks that were found with their scores."""
    from ondol.app import trace_tree
    from ondol.store import spans

    with context.open_store() as store:
        newest = spans.traces(store, limit=1) if not trace else []
        if not trace and not newest:
            raise errors.NotFoundError("no traces yet", way_out="`ondol ask` makes one.", code="NOF-162")
        found = spans.of_trace(store, trace or newest[0].trace)

    def draw() -> None:
        from rich.console import Console

        Console().print(trace_tree.tree(found))

    output.emit(found, as_json, draw)


def _money(cost: Any) -> str:
    return "?" if cost is None else f"${float(cost):.6f}"
