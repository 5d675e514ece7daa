"""A run as one self-contained HTML page: graph, Gantt chart, steps, artifacts. Opens from a file, without a server.

Everything from the run is escaped; pages that components made are shown in frames that may run no script.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from ondol.formats.kfp_graph import Graph, Pipeline
from ondol.pipelines import drawing, previews
from ondol.pipelines.previews import Preview
from ondol.records.pipeline import PipelineRun, TaskState

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1d2127;margin:2rem auto;max-width:70rem;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0}
td,th{border-bottom:1px solid #e3e6ea;padding:.25rem .75rem;text-align:left;vertical-align:top}
pre{background:#f6f7f9;padding:.5rem;overflow:auto;max-height:20rem}figure{margin:0;overflow:auto}
iframe{width:100%;height:24rem;border:1px solid #e3e6ea}h3{margin-bottom:0}
td:nth-child(3){white-space:nowrap}.path{color:#5b626c}
"""


def of(run: PipelineRun, pipeline: Pipeline) -> str:
    """Return the page of a run."""
    body = "\n".join(
        [
            f"<h1>{escape(run.name)}</h1>",
            f"<p>{escape(run.id)}: <b>{run.state}</b>, {max(0.0, run.ended_at - run.started_at):.1f} s</p>",
            f"<pre>{escape(run.error)}</pre>" if run.error else "",
            _values("Parameters", run.parameters),
            _values("Outputs", run.outputs),
            *graphs(pipeline, run),
            f"<h2>Time</h2><figure>{drawing.gantt(run)}</figure>",
            f"<h2>Steps</h2>{_steps(run)}",
            "<h2>Artifacts</h2>",
            *artifacts(run),
        ]
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(run.name)} {escape(run.id)}</title>'
        f"<style>{_STYLE}</style><body>{body}</body></html>"
    )


def graphs(pipeline: Pipeline, run: PipelineRun) -> Iterator[str]:
    """Yield the pipeline's graph and those inside it, each as a heading and a picture."""
    tasks = {task.name: task for task in run.tasks}
    unreached: TaskState = "pending" if run.state == "running" else "skipped"
    waiting: list[tuple[str, str, Any]] = [("", "Graph", pipeline.root.body)]
    while waiting:
        prefix, title, body = waiting.pop(0)
        yield f"<h2>{escape(title)}</h2><figure>{drawing.graph(pipeline, body, tasks, prefix, unreached)}</figure>"
        for name, task in body.tasks.items():
            inner = pipeline.components[task.component].body
            if isinstance(inner, Graph):
                # Of a loop the first item is drawn; the steps of all are in the table.
                inside = f"{prefix}{name}/" + ("0/" if task.loop else "")
                waiting.append((inside, f"Inside {prefix}{name}", inner))


def _values(title: str, values: dict[str, Any]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(repr(value))}</td></tr>" for name, value in values.items())
    return f"<h2>{title}</h2><table>{rows}</table>" if values else ""


def _steps(run: PipelineRun) -> str:
    rows = []
    for task in run.tasks:
        state = drawing.state_of(task)
        took = "" if task.cached or not task.ended_at else f"{task.ended_at - task.started_at:.2f} s"
        said = [f"{name} = {value!r}" for name, value in task.parameters.items()]
        said += [f"MLflow run: {one}" for one in task.mlflow_runs]
        cells = (
            escape(task.name),
            f'<b style="color:{drawing.COLOURS[state]}">{state}</b>',
            took,
            str(task.attempt or ""),
            escape(task.error) or "<br>".join(map(escape, said)),
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("step", "state", "took", "attempt", "made"))
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def artifacts(run: PipelineRun) -> Iterator[str]:
    """Yield every artifact of a run with what it looks like, as HTML."""
    for task in run.tasks:
        for name, artifact in task.outputs.items():
            yield (
                f"<h3>{escape(task.name)}: {escape(name)}</h3>"
                f'<p class="path">{escape(artifact.type)} {escape(artifact.path)}</p>{shown(previews.of(artifact))}'
            )


def shown(preview: Preview) -> str:
    """Return a preview as HTML."""
    parts = []
    if preview.numbers:
        parts.append(_table((), tuple(preview.numbers.items())))
    if preview.curve:
        parts.append(f"<figure>{drawing.curve(preview.curve)}</figure>")
    if preview.rows:
        rows = preview.rows
        if preview.kind == "classification":
            rows = tuple((label, *row) for label, row in zip(preview.labels, rows, strict=False))
            parts.append(_table(("true \\ predicted", *preview.labels), rows))
        else:
            parts.append(_table(preview.labels, rows))
    if preview.kind == "html":
        parts.append(f'<iframe sandbox="" srcdoc="{escape(preview.text, quote=True)}"></iframe>')
    elif preview.text:
        parts.append(f"<pre>{escape(preview.text)}</pre>")
    return "".join(parts)


def _table(head: tuple[str, ...], rows: tuple[tuple[Any, ...], ...]) -> str:
    top = "<tr>" + "".join(f"<th>{escape(str(name))}</th>" for name in head) + "</tr>" if head else ""
    lines = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{top}{lines}</table>"
