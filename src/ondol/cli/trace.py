"""`ondol trace`: what happened in a question, as a tree."""

from __future__ import annotations

from typing import Any

import click

from ondol.cli import context, output
from ondol.records.span import Span


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
  ondol trace show 4bf92f3577b3
  ondol trace show 4bf92f3577b3 --json""",
)
@click.argument("trace")
@output.json_option
def show(trace: str, as_json: bool) -> None:
    """Show one trace as a tree: times, tokens, cost, the chunks that were found with their scores."""
    from ondol.store import spans

    with context.open_store() as store:
        found = spans.of_trace(store, trace)
    output.emit(found, as_json, lambda: _draw(found))


def _draw(found: list[Span]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.tree import Tree

    known = {one.id for one in found}
    below: dict[str, list[Span]] = {}
    for one in found:
        below.setdefault(one.parent if one.parent in known else "", []).append(one)
    tree = Tree(f"trace {found[0].trace}")

    def grow(branch: Any, parent: str) -> None:
        for one in below.get(parent, []):
            twig = branch.add(escape(_line(one)), style="red" if one.error else "")
            for line in _details(one):
                twig.add(escape(line), style="dim")
            grow(twig, one.id)

    grow(tree, "")
    Console().print(tree)


def _line(one: Span) -> str:
    parts = [one.name, f"{one.milliseconds:.1f} ms"]
    given, written = one.attributes.get("gen_ai.usage.input_tokens"), one.attributes.get("gen_ai.usage.output_tokens")
    if given or written:
        parts.append(f"{given or 0} in + {written or 0} out tokens")
    if "ondol.cost.status" in one.attributes:
        parts.append(f"{_money(one.attributes.get('ondol.cost.usd'))} ({one.attributes['ondol.cost.status']})")
    if one.error:
        parts.append(f"ERROR {one.error}")
    return "  ".join(parts)


_SHOWN = (
    "ondol.question",
    "ondol.answer",
    "ondol.answerer",
    "ondol.degraded",
    "ondol.release",
    "ondol.arm",
    "ondol.unit",
    "ondol.index",
    "ondol.prompt",
    "ondol.rail.allowed",
    "ondol.rail.rail",
    "ondol.rail.reason",
    "ondol.score",
    "ondol.valid",
    "ondol.problem",
    "gen_ai.request.model",
)


def _details(one: Span) -> list[str]:
    lines = []
    for name in _SHOWN:
        value = one.attributes.get(name)
        if value not in (None, ""):
            text = str(value).replace("\n", " ")
            lines.append(f"{name.removeprefix('ondol.')}: {text[:160]}{'…' if len(text) > 160 else ''}")
    lines.extend(
        f"{chunk['score']:.3f}  {chunk['title'] or chunk['document']}  "
        f"(dense {chunk['dense']:.3f}, words {chunk['lexical']:.2f})"
        for chunk in one.attributes.get("ondol.retrieval.documents") or []
    )
    return lines


def _money(cost: Any) -> str:
    return "?" if cost is None else f"${float(cost):.6f}"
