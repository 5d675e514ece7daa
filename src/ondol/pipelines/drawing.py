"""Pictures of a run as SVG: its graph with states, its Gantt chart, a ROC curve. Text in, text out; no libraries.

States are told by word and by colour. Must not read anything: records come in.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from ondol.formats import kfp_graph
from ondol.formats.kfp_graph import Graph, Pipeline
from ondol.records.pipeline import PipelineRun, TaskRun, TaskState

COLOURS = {
    "succeeded": "#2e7d4f",
    "reused": "#4a7fb5",
    "running": "#c77d11",
    "failed": "#b3382c",
    "skipped": "#8a8f98",
    "cancelled": "#6b5b95",
    "pending": "#767d88",
}
_BOX, _GAP, _HIGH, _ROW = 190, 50, 40, 64
_BAR, _LABEL, _WIDE = 22, 220, 640


def state_of(task: TaskRun) -> str:
    """Return a task's state in one word: `reused` is one of its own."""
    return "reused" if task.cached else task.state


def graph(
    pipeline: Pipeline, body: Graph, tasks: Mapping[str, TaskRun], prefix: str = "", unreached: TaskState = "pending"
) -> str:
    """Return one graph of a pipeline as SVG: a box per task, in columns by what it waits for.

    :param tasks: the run's tasks by name; empty for a pipeline that has not run.
    :param prefix: of the tasks' names in the run, `outer/` inside a nested pipeline.
    :param unreached: the state of tasks that the run has not come to.
    """
    columns = _columns(body)
    places = {
        name: (10 + column * (_BOX + _GAP), 10 + row * _ROW)
        for column, names in enumerate(columns)
        for row, name in enumerate(names)
    }
    wide = max((x for x, _ in places.values()), default=0) + _BOX + 10
    high = max((y for _, y in places.values()), default=0) + _HIGH + 10
    parts = []
    for name, task in body.tasks.items():
        x, y = places[name]
        for other in kfp_graph.before(task):
            from_x, from_y = places[other][0] + _BOX, places[other][1] + _HIGH / 2
            middle = (from_x + x) / 2
            path = f"M{from_x},{from_y} C{middle},{from_y} {middle},{y + _HIGH / 2} {x},{y + _HIGH / 2}"
            parts.append(f'<path d="{path}" fill="none" stroke="#9aa1ab" stroke-width="1.5"/>')
    for name, (x, y) in places.items():
        done = tasks.get(prefix + name)
        inner = pipeline.components[body.tasks[name].component].body
        state = state_of(done) if done is not None else unreached
        parts.append(_box(x, y, name, state, done, len(inner.tasks) if isinstance(inner, Graph) else 0))
    return _svg(wide, high, parts, "Graph of the pipeline")


def _columns(body: Graph) -> list[list[str]]:
    depth: dict[str, int] = {}
    left = {name: set(kfp_graph.before(task)) for name, task in body.tasks.items()}
    while left:
        free = [name for name, needs in left.items() if not needs & left.keys()]
        for name in free:
            depth[name] = 1 + max((depth[need] for need in kfp_graph.before(body.tasks[name])), default=-1)
        for name in free:
            del left[name]
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name, column in depth.items():
        columns[column].append(name)
    return columns


def _box(x: float, y: float, name: str, state: str, task: TaskRun | None, inner: int) -> str:
    colour = COLOURS[state]
    said = f"{state}, {inner} inside" if inner else state
    title = f"{name}: {state}" + (f", {task.error}" if task is not None and task.error else "")
    return (
        f'<g><title>{escape(title)}</title><rect x="{x}" y="{y}" width="{_BOX}" height="{_HIGH}" rx="6" '
        f'fill="#fff" stroke="{colour}" stroke-width="2"/><rect x="{x}" y="{y}" width="6" height="{_HIGH}" rx="3" '
        f'fill="{colour}"/>{_word(x + 14, y + 17, _cut(name, 24), "#1d2127")}{_word(x + 14, y + 32, said, colour)}</g>'
    )


def gantt(run: PipelineRun, now: float | None = None) -> str:
    """Return a run's Gantt chart as SVG: a bar per step, from its start to its end, in seconds since the first start.

    :param now: when the run is looked at, seconds since 1970; steps that still run end there.
    """
    now = time.time() if now is None else now
    steps = [task for task in run.tasks if not task.graph and task.started_at]
    begin = min((task.started_at for task in steps), default=run.started_at)
    end = max([*((task.ended_at or now) for task in steps), begin + 1e-3])
    scale = _WIDE / (end - begin)
    parts = []
    for tick in range(5):
        x = _LABEL + tick * _WIDE / 4
        parts.append(f'<line x1="{x}" y1="18" x2="{x}" y2="{24 + len(steps) * _BAR}" stroke="#e3e6ea"/>')
        parts.append(_word(x, 12, f"{(end - begin) * tick / 4:.3g} s", "#5b626c"))
    for row, task in enumerate(steps):
        y, state = 24 + row * _BAR, state_of(task)
        # A reused step carries the times of the run that made it; it is a mark, not a bar.
        start = begin if task.cached else task.started_at
        took = 0.0 if task.cached else (task.ended_at or now) - task.started_at
        parts.append(_word(4, y + 14, _cut(task.name, 30), "#1d2127"))
        parts.append(
            f"<g><title>{escape(task.name)}: {state}, {took:.3g} s</title>"
            f'<rect x="{_LABEL + (start - begin) * scale:.1f}" y="{y + 3}" width="{max(3.0, took * scale):.1f}" '
            f'height="{_BAR - 6}" rx="3" fill="{COLOURS[state]}"/></g>'
        )
    return _svg(_LABEL + _WIDE + 60, 34 + len(steps) * _BAR, parts, "Gantt chart of the run")


def curve(points: Sequence[tuple[float, float]]) -> str:
    """Return a ROC curve as SVG: false positive rate to the right, recall upwards."""
    line = " ".join(f"{30 + x * 200:.1f},{220 - y * 200:.1f}" for x, y in points)
    parts = [
        '<rect x="30" y="20" width="200" height="200" fill="none" stroke="#9aa1ab"/>',
        '<line x1="30" y1="220" x2="230" y2="20" stroke="#d5d9de" stroke-dasharray="4"/>',
        f'<polyline points="{line}" fill="none" stroke="#4a7fb5" stroke-width="2"/>',
        _word(80, 238, "false positive rate", "#5b626c"),
        _word(30, 14, "recall", "#5b626c"),
    ]
    return _svg(240, 246, parts, "ROC curve")


def _word(x: float, y: float, text: str, colour: str) -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}" font-size="12">{escape(text)}</text>'


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else "…" + text[-length + 1 :]


def _svg(wide: float, high: float, parts: list[str], title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(title)}" width="{wide:g}" '
        f'height="{high:g}" viewBox="0 0 {wide:g} {high:g}" font-family="system-ui, sans-serif">{"".join(parts)}</svg>'
    )
