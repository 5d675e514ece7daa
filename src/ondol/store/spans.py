"""Spans and one summary row per trace."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ondol.base import errors
from ondol.records.span import Span, TraceSummary
from ondol.store.connection import Store


def append(store: Store, spans: Iterable[Span]) -> None:
    """Keep finished spans in one transaction; a span that is there already is replaced."""
    batch = list(spans)
    if not batch:
        return
    with store.write() as tx:
        tx.execute_many(
            "INSERT INTO spans (trace, id, parent, name, started, ended, error, attributes) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (trace, id) DO UPDATE SET ended = excluded.ended, "
            "error = excluded.error, attributes = excluded.attributes",
            [
                (
                    one.trace,
                    one.id,
                    one.parent,
                    one.name,
                    one.started,
                    one.ended,
                    one.error,
                    msgspec.json.encode(one.attributes).decode(),
                )
                for one in batch
            ],
        )
        tx.execute_many(
            "INSERT INTO traces (trace, at, name, application, question, milliseconds, input_tokens, output_tokens, "
            "cost, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (trace) DO UPDATE SET at = excluded.at, "
            "name = excluded.name, application = excluded.application, question = excluded.question, "
            "milliseconds = excluded.milliseconds, input_tokens = excluded.input_tokens, "
            "output_tokens = excluded.output_tokens, cost = excluded.cost, error = excluded.error",
            [_summary(one) for one in batch if is_root(one)],
        )


def is_root(span: Span) -> bool:
    """Whether the span is the top of what we saw: it has no parent, or its parent is the caller's."""
    return not span.parent or bool(span.attributes.get("ondol.root"))


def _summary(span: Span) -> tuple[object, ...]:
    attributes = span.attributes
    return (
        span.trace,
        span.started,
        span.name,
        str(attributes.get("ondol.application", "")),
        str(attributes.get("ondol.question", ""))[:200],
        span.milliseconds,
        int(attributes.get("gen_ai.usage.input_tokens") or 0),
        int(attributes.get("gen_ai.usage.output_tokens") or 0),
        attributes.get("ondol.cost.usd"),
        span.error,
    )


def of_trace(store: Store, trace: str) -> list[Span]:
    """Return the spans of a trace (or of the one trace whose id starts so, 6 digits or more), in order of their start.

    :raises NotFoundError: when there is none, or more than one.
    """
    with store.read() as tx:
        names = [row["trace"] for row in tx.rows("SELECT DISTINCT trace FROM spans WHERE trace = ?", (trace,))]
        if not names and len(trace) >= 6 and trace.isalnum():
            found = tx.rows("SELECT DISTINCT trace FROM spans WHERE trace LIKE ? LIMIT 2", (trace + "%",))
            names = [row["trace"] for row in found]
        if len(names) != 1:
            raise errors.NotFoundError(
                f"{'no trace' if not names else 'more than one trace'} {trace!r}",
                way_out="`ondol trace list` shows the newest.",
                code="NOF-162",
            )
        rows = tx.rows("SELECT * FROM spans WHERE trace = ? ORDER BY started, ended DESC", (names[0],))
    return [
        Span(
            row["trace"],
            row["id"],
            row["parent"],
            row["name"],
            row["started"],
            row["ended"],
            row["error"],
            msgspec.json.decode(row["attributes"]),
        )
        for row in rows
    ]


def traces(store: Store, application: str = "", limit: int = 20) -> list[TraceSummary]:
    """Return the newest traces."""
    with store.read() as tx:
        rows = tx.rows(
            "SELECT t.*, (SELECT COUNT(*) FROM spans s WHERE s.trace = t.trace) AS spans FROM traces t "
            "WHERE (? = '' OR t.application = ?) ORDER BY t.at DESC LIMIT ?",
            (application, application, limit),
        )
    return [TraceSummary(**{name: row[name] for name in TraceSummary.__dataclass_fields__}) for row in rows]


def remove_before(store: Store, moment: float) -> int:
    """Forget traces that began before a moment; returns how many."""
    with store.write() as tx:
        tx.execute("DELETE FROM spans WHERE trace IN (SELECT trace FROM traces WHERE at < ?)", (moment,))
        return tx.execute("DELETE FROM traces WHERE at < ?", (moment,))
