"""One trace as a tree, for everybody who shows one: times, tokens, cost, the chunks that were found with their scores.

Must not read the store.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ondol.records.span import Span

if TYPE_CHECKING:
    from rich.tree import Tree


def tree(found: Sequence[Span]) -> Tree:
    """Return the spans of one trace as a tree that `rich` draws."""
    from rich.markup import escape
    from rich.tree import Tree

    known = {one.id for one in found}
    below: dict[str, list[Span]] = {}
    for one in found:
        below.setdefault(one.parent if one.parent in known else "", []).append(one)
    top = Tree(f"trace {found[0].trace}")

    def grow(branch: Any, parent: str) -> None:
        for one in below.get(parent, []):
            twig = branch.add(escape(_line(one)), style="red" if one.error else "")
            for line in _details(one):
                twig.add(escape(line), style="dim")
            grow(twig, one.id)

    grow(top, "")
    return top


def text(found: Sequence[Span], width: int = 120) -> str:
    """Return the tree as plain text."""
    from rich.console import Console

    written = io.StringIO()
    Console(file=written, width=width, color_system=None).print(tree(found))
    return written.getvalue().rstrip("\n")


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
