"""A profile as one self-contained HTML page: no scripts, no fonts, no other files. Light and dark."""

from __future__ import annotations

from html import escape

from ondol.data.profile import Bar, ColumnProfile, Profile

_WIDTH, _HEIGHT = 300, 64  # of a histogram, pixels
_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d9d9de, #3a3a42); --bar: light-dark(#c2562d, #e08a5f);
  --soft: light-dark(#5c5c66, #a6a6b0); }
body { font: 15px/1.5 system-ui, "Apple SD Gothic Neo", "Noto Sans KR", sans-serif; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem; background: light-dark(#fff, #17171b); color: light-dark(#1c1c22, #ececf1); }
h1 { font-size: 1.4rem; margin: 0 } p { margin: .3rem 0 1rem; color: var(--soft) }
ul { padding-left: 1.2rem } li { margin: .2rem 0 }
article { display: grid; grid-template-columns: minmax(0, 1fr) 300px; gap: 1rem; padding: 1rem 0;
  border-top: 1px solid var(--line) }
h2 { font-size: 1rem; margin: 0; overflow-wrap: anywhere } small { color: var(--soft); font-weight: normal }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 .8rem; margin: .4rem 0 0; font-size: .9rem }
dt { color: var(--soft) } dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
svg { width: 100%; height: auto } rect { fill: var(--bar) } text { fill: var(--soft); font-size: 10px }
@media (max-width: 40rem) { article { grid-template-columns: 1fr } }
"""


def render(profile: Profile) -> str:
    """Return the page."""
    notes = "".join(f"<li>{escape(note)}</li>" for note in profile.notes)
    columns = "".join(_column(column, profile) for column in profile.columns)
    title = escape(profile.name)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}: profile</title><style>{_STYLE}</style></head><body>"
        f"<h1>{title}</h1><p>{profile.rows:,} rows, {len(profile.columns)} columns</p>"
        + (f"<ul>{notes}</ul>" if notes else "")
        + f"{columns}</body></html>\n"
    )


def _column(column: ColumnProfile, profile: Profile) -> str:
    facts = [("empty", f"{column.nulls:,} ({column.nulls / max(profile.rows, 1):.1%})")]
    facts.append(("distinct", f"{column.distinct:,}"))
    if column.mean is not None and column.deviation is not None:
        facts.append(("mean ± deviation", f"{column.mean:.6g} ± {column.deviation:.4g}"))
        low, p5, p25, median, p75, p95, high = column.quantiles
        facts.append(("range", f"{low:g} to {high:g}"))
        facts.append(("5 · 25 · 50 · 75 · 95 %", f"{p5:g} · {p25:g} · {median:g} · {p75:g} · {p95:g}"))
    if column.first:
        facts.append(("range", f"{column.first} to {column.last}"))
    if column.with_target is not None:
        facts.append((f"with {profile.target}", f"{column.with_target:.2f}"))
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    ordered = bool(column.quantiles or column.first)
    drawn = _histogram(column.bars) if ordered else _ranking(column.bars)
    return (
        f"<article><div><h2>{escape(column.name)} <small>{column.kind}</small></h2>"
        f"<dl>{listed}</dl></div><div>{drawn}</div></article>"
    )


def _histogram(bars: tuple[Bar, ...]) -> str:
    if not bars:
        return ""
    step, top = _WIDTH / len(bars), max(bar.count for bar in bars) or 1
    drawn = []
    for index, bar in enumerate(bars):
        height = bar.count / top * _HEIGHT
        drawn.append(
            f'<rect x="{index * step + 0.5:.1f}" y="{_HEIGHT - height:.1f}" width="{max(step - 1, 0.5):.1f}" '
            f'height="{height:.1f}"><title>{escape(bar.label)}: {bar.count:,}</title></rect>'
        )
    label = f"histogram from {escape(bars[0].label)} to {escape(bars[-1].label)}"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'


def _ranking(bars: tuple[Bar, ...]) -> str:
    if not bars:
        return ""
    top = max(bar.count for bar in bars)
    drawn = []
    for index, bar in enumerate(bars):
        name = bar.label if len(bar.label) <= 22 else bar.label[:21] + "…"
        y = index * 15
        drawn.append(
            f'<text x="0" y="{y + 11}">{escape(name)}</text>'
            f'<rect x="130" y="{y + 2}" width="{bar.count / top * 120:.1f}" height="10"></rect>'
            f'<text x="{135 + bar.count / top * 120:.1f}" y="{y + 11}">{bar.count:,}</text>'
        )
    height = len(bars) * 15
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="most frequent values">{"".join(drawn)}</svg>'
