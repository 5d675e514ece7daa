"""Small drawings as inline SVG; colours come from the page's style sheet, so that they fit dark and light.

Must not read the store: numbers in, text out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 26
_POINTS = 160  # a line has no more: the rest could not be seen

Point = tuple[float, float]


def thin(points: Sequence[Point]) -> list[Point]:
    """Keep at most `_POINTS` points, evenly, the last one always."""
    if len(points) <= _POINTS:
        return list(points)
    every = len(points) / _POINTS
    return [points[int(index * every)] for index in range(_POINTS)] + [points[-1]]


def _ceiling(value: float) -> float:
    """Return the next number above that reads well on an axis."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** (len(str(int(value))) - 1) if value >= 1 else 1.0
    while unit > value:
        unit /= 10
    return next((unit * step for step in (1, 1.5, 2, 3, 5, 7.5, 10) if unit * step >= value), unit * 10)


def lines(
    series: Mapping[str, Sequence[Point]], *, label: str, percent: bool = False, x_label: str = "", top: float = 0.0
) -> str:
    """Draw lines over one axis, each named by its CSS class (`stable`, `candidate`).

    :param series: name -> (x, y), x ascending, y not negative.
    :param top: end of the y axis; 0: what the lines need.
    """
    drawn = {name: thin(points) for name, points in series.items() if points}
    if not drawn:
        return ""
    right = max(points[-1][0] for points in drawn.values()) or 1.0
    top = top or _ceiling(max(y for points in drawn.values() for _, y in points) * 1.05)
    across, up = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> str:
        return f"{_LEFT + across * x / right:.1f},{_TOP + up * (1 - y / top):.1f}"

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for share in (0.0, 0.5, 1.0):
        y = _TOP + up * (1 - share)
        text = f"{top * share * 100:.3g} %" if percent else f"{top * share:.3g}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    parts.append(f'<text class="tick" x="{_LEFT}" y="{HEIGHT - 6}">0</text>')
    end = f"{right:,.0f} {escape(x_label)}"
    parts.append(f'<text class="tick" x="{WIDTH - _RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{end}</text>')
    for name, points in drawn.items():
        path = " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline class="line {escape(name)}" points="{path}"/>')
        parts.append(f'<circle class="dot {escape(name)}" r="3.5" {_centre(place(*points[-1]))}/>')
    return "".join([*parts, "</svg>"])


def band(points: Sequence[tuple[float, float, float, float]], margin: float, *, label: str, x_label: str = "") -> str:
    """Draw an interval that narrows: (x, low, middle, high), the line at 0 and the margin that is accepted, a fall when
    it is negative."""
    if len(points) < 2:
        return ""
    right = points[-1][0] or 1.0
    # The first intervals are as wide as can be: the scale is that of the later half.
    seen = [value for _, low, _, high in points[len(points) // 2 :] for value in (low, high)]
    low, high = min(*seen, 0.0, margin), max(*seen, 0.0, margin)
    room = (high - low) * 0.1 or 1.0
    low, high = low - room, high + room
    across, up = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def y_of(value: float) -> float:
        return _TOP + up * (high - min(max(value, low), high)) / (high - low)

    def place(x: float, value: float) -> str:
        return f"{_LEFT + across * x / right:.1f},{y_of(value):.1f}"

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    outline = [place(x, one) for x, one, _, _ in points] + [place(x, one) for x, _, _, one in reversed(points)]
    parts.append(f'<polygon class="band" points="{" ".join(outline)}"/>')
    for name, value in (("grid", high - room), ("grid", 0.0), ("grid", low + room), ("margin", margin)):
        y = y_of(value)
        parts.append(f'<line class="{name}" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if name == "margin":
            at = f'x="{WIDTH - _RIGHT}" y="{y - 5:.1f}"'
            parts.append(f'<text class="tick" {at} text-anchor="end">{"≤" if value >= 0 else "≥"} {value:.3g}</text>')
        elif value == 0.0 or abs(y - y_of(0.0)) > 14:
            parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_tick(value)}</text>')
    middle = " ".join(place(x, one) for x, _, one, _ in points)
    parts.append(f'<polyline class="line middle" points="{middle}"/>')
    end = f"{right:,.0f} {escape(x_label)}"
    parts.append(f'<text class="tick" x="{WIDTH - _RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{end}</text>')
    return "".join([*parts, "</svg>"])


def _centre(place: str) -> str:
    x, _, y = place.partition(",")
    return f'cx="{x}" cy="{y}"'


@dataclass(frozen=True, slots=True)
class Bar:
    """One step of a run on the timeline."""

    name: str
    start: float
    end: float
    """Seconds since the run began."""

    state: str
    """A CSS class: `succeeded`, `failed`, `cached` …"""

    link: str = ""


def _tick(value: float) -> str:
    """Return a number short enough for the margin: -0.000283 becomes -2.8e-4."""
    text = f"{value:.3g}"
    if len(text) <= 7:
        return text
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}e{int(exponent)}"


def timeline(bars: Sequence[Bar], *, label: str) -> str:
    """Draw steps as bars, one per row, in the order they began."""
    if not bars:
        return ""
    row, name_width = 26, 190
    total = max(max(bar.end for bar in bars), 0.001)
    across = WIDTH - name_width - 70
    height = row * len(bars) + 6
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">']
    for index, bar in enumerate(sorted(bars, key=lambda one: (one.start, one.end))):
        y = index * row + 4
        x = name_width + across * max(bar.start, 0.0) / total
        width = max(3.0, across * (bar.end - bar.start) / total)
        name = bar.name if len(bar.name) <= 26 else bar.name[:25] + "…"
        opened, closed = (f'<a href="{escape(bar.link)}">', "</a>") if bar.link else ("", "")
        parts.append(
            f'{opened}<text class="tick name" x="{name_width - 10}" y="{y + 15}" text-anchor="end">{escape(name)}'
            f"<title>{escape(bar.name)}</title></text>"
            f'<rect class="bar {escape(bar.state)}" x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="16" rx="4"/>'
            f'<text class="tick" x="{x + width + 6:.1f}" y="{y + 15}">{bar.end - bar.start:.2f} s</text>{closed}'
        )
    return "".join([*parts, "</svg>"])
