"""The scorecard as one self-contained page."""

from __future__ import annotations

from html import escape

from ondol.app.rehearsal.drills import Outcome
from ondol.app.rehearsal.play import Scorecard

_MARKS = {True: ("passed", "✔"), False: ("failed", "✘"), None: ("open", "–")}
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.45rem .6rem;border-bottom:1px solid #dde3ea;
vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}.passed{color:#11734b}.failed{color:#b3261e}
.open{color:#6b7684}small{color:#5b6675}
@media(prefers-color-scheme:dark){body{background:#12161c;color:#e6eaf0}th,td{border-color:#2b333d}
.passed{color:#5fd3a0}.failed{color:#ff8a80}small,.open{color:#97a3b1}}
"""


def render(card: Scorecard) -> str:
    """Return the page."""
    rows = "".join(_row(one) for one in card.outcomes)
    missed = f" Missed: {escape(', '.join(card.missed))}." if card.missed else ""
    left = f" Open: {escape(', '.join(card.open))}." if card.open else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Rehearsal of {escape(card.model)}</title>"
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>"
        f"<h1>Rehearsal of {escape(card.model)}</h1>"
        f"<p>{card.passed} drills passed, {card.failed} failed, {len(card.open)} open in {card.seconds:.0f} s; "
        f"{card.hurt:,} requests were hurt.{missed}{left}</p>"
        "<table><tr><th><th>drill<th>should be<th>happened<th>seconds<th>requests hurt<th>alert</tr>"
        f"{rows}</table></html>"
    )


def _row(one: Outcome) -> str:
    style, mark = _MARKS[one.passed]
    reason = str(one.evidence.get("reason", ""))
    small = f"<br><small>{escape(reason)}</small>" if reason else ""
    return (
        f"<tr><td class={style}>{mark}<td>{escape(one.drill)}<td>{escape(one.expected)}"
        f"<td>{escape(one.happened)}{small}<td class=n>{one.seconds:.1f}<td class=n>{one.hurt:,}"
        f"<td>{'yes' if one.told else ''}</tr>"
    )
