"""`ondol pipeline`: what ran, what each step made, and its logs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ondol.base import clock, errors
from ondol.cli import context, output, pipeline_schedule

if TYPE_CHECKING:
    from ondol.records.pipeline import PipelineRun, TaskRun


@click.group()
def group() -> None:
    """Pipeline runs of this project.

    \b
    Examples:
      ondol pipeline list
      ondol pipeline show latest
      ondol pipeline logs latest train-model
      ondol pipeline schedule create train.py --cron "0 0 3 * * *"
    """


group.add_command(pipeline_schedule.schedule)
group.add_command(pipeline_schedule.stop)
group.add_command(pipeline_schedule.retry)


def _state(run: PipelineRun, home: Path) -> str:
    from ondol.pipelines import runner

    return "interrupted" if run.state == "running" and not runner.is_running(home, run.id) else run.state


def _took(started: float, ended: float) -> str:
    return f"{(ended or time.time()) - started:.1f} s" if started else ""


@group.command("list")
@click.option("--name", default="", help="Only runs of this pipeline.")
@click.option("--limit", default=20, show_default=True, help="How many.")
@output.json_option
def list_runs(name: str, limit: int, as_json: bool) -> None:
    """List runs, newest first.

    \b
    Examples:
      ondol pipeline list
      ondol pipeline list --name ml-training-pipeline --json
    """
    from ondol.store import runs

    settings = context.load_settings()
    with context.open_store(settings) as store:
        found = runs.every(store, name, limit)

    def show() -> None:
        rows = [
            (
                run.id,
                run.name,
                _state(run, settings.home),
                clock.iso(run.started_at)[5:16].replace("T", " "),
                _took(run.started_at, run.ended_at),
                _steps(run),
            )
            for run in found
        ]
        output.table(
            ("run", "pipeline", "state", "started (UTC)", "took", "steps"),
            rows,
            empty="no runs yet: ondol run PIPELINE.py",
        )

    output.emit(found, as_json, show)


def _steps(run: PipelineRun) -> str:
    leaves = [task for task in run.tasks if not task.graph]
    reused = sum(task.cached for task in leaves)
    return f"{len(leaves)} ({reused} reused)" if reused else str(len(leaves))


@group.command("show")
@click.argument("run")
@click.option("--artifacts", is_flag=True, help="Show what the artifacts look like.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Write the run as one page.")
@output.json_option
def show_run(run: str, artifacts: bool, page: Path | None, as_json: bool) -> None:
    """Show one run: its steps, what they made, and where it failed.

    RUN is an id, an unambiguous part of one, or `latest`.

    \b
    Examples:
      ondol pipeline show latest
      ondol pipeline show run-01m842pt --json
      ondol pipeline show latest --artifacts
      ondol pipeline show latest --html run.html
    """
    from ondol.cli import pipeline_views
    from ondol.store import runs

    settings = context.load_settings()
    with context.open_store(settings) as store:
        found = runs.get(store, run)
    if page is not None:
        pipeline_views.write_page(found, settings.home, page)
    if artifacts and as_json:
        output.emit(pipeline_views.previews_of(found), as_json, lambda: None)
        return
    output.emit(found, as_json, lambda: _show(found, settings.home))
    if artifacts:
        pipeline_views.show_previews(found)


def _show(run: PipelineRun, home: Path) -> None:
    print(f"{run.id}  {run.name}  {_state(run, home)}  {_took(run.started_at, run.ended_at)}")
    print(f"  file: {run.source}")
    if run.mlflow_run:
        print(f"  MLflow run: {run.mlflow_run}")
    for name, value in run.parameters.items():
        print(f"  {name} = {value!r}")
    for name, value in run.outputs.items():
        print(f"  -> {name} = {value!r}")
    for note in run.notes:
        print(f"  note: {note}")
    rows = [
        (task.name, "reused" if task.cached else task.state, _took(task.started_at, task.ended_at), _made(task))
        for task in run.tasks
    ]
    output.table(("step", "state", "took", "made"), rows)
    if run.error:
        print(f"failed: {run.error}")
        print(f"go on with: ondol run --resume {run.id}")


def _made(task: TaskRun) -> str:
    lines = [task.error] if task.error else []
    lines += [f"{name} = {value!r}" for name, value in task.parameters.items()]
    for name, artifact in task.outputs.items():
        numbers = ", ".join(
            f"{key}={value}" for key, value in artifact.metadata.items() if isinstance(value, (int, float, str))
        )
        lines.append(f"{name}: {numbers}" if not artifact.digest else f"{name}: {artifact.path}")
    lines += [f"MLflow run: {made}" for made in task.mlflow_runs]
    return "\n".join(lines)


def _log(task: TaskRun, attempt: int) -> str:
    path = Path(task.log_path)
    if attempt:
        path = path.parent.parent / f"attempt-{attempt}" / path.name
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


@group.command("logs")
@click.argument("run")
@click.argument("task", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the run has ended.")
@click.option("--attempt", default=0, metavar="N", help="An earlier attempt of the step (default: the last).")
@output.json_option
def logs(run: str, task: str | None, follow: bool, attempt: int, as_json: bool) -> None:
    """Print the logs of a run's steps, or of one.

    \b
    Examples:
      ondol pipeline logs latest
      ondol pipeline logs latest train-model
      ondol pipeline logs latest -f
      ondol pipeline logs latest train-model --attempt 1
    """
    from ondol.cli import pipeline_views
    from ondol.store import runs

    settings = context.load_settings()
    with context.open_store(settings) as store:
        found = runs.get(store, run)
        if follow:
            pipeline_views.follow(store, settings, found.id, task)
            return
    tasks = [one for one in found.tasks if one.log_path and task in (None, one.name)]
    if task and not tasks:
        names = ", ".join(one.name for one in found.tasks if one.log_path)
        raise errors.NotFoundError(
            f"no log of step {task!r} in {found.id}", way_out=f"There are: {names or 'none'}.", code="NOF-011"
        )
    texts = [(one, _log(one, attempt)) for one in tasks]

    def show() -> None:
        for one, text in texts:
            if task is None:
                print(f"== {one.name} (attempt {one.attempt or 1}{', reused' if one.cached else ''})")
            print(text, end="" if text.endswith("\n") else "\n")

    output.emit([{"task": one.name, "path": one.log_path, "log": text} for one, text in texts], as_json, show)
