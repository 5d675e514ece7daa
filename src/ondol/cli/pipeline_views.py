"""`ondol pipeline show` beyond the table: artifacts as text, the run as a page; and logs that go on by themselves."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondol.base.settings import Settings
from ondol.cli import output
from ondol.store.connection import Store

if TYPE_CHECKING:
    from ondol.pipelines.previews import Preview
    from ondol.records.pipeline import PipelineRun

_LOOK = 0.3  # seconds between looks at logs that are followed


def write_page(run: PipelineRun, home: Path, target: Path) -> None:
    """Write a run as one self-contained HTML page."""
    from ondol.pipelines import page, runner

    target.write_text(page.of(run, runner.kept_pipeline(run, home)), encoding="utf-8")


def previews_of(run: PipelineRun) -> dict[str, dict[str, Preview]]:
    """Return every artifact of a run as it looks, by step and name."""
    from ondol.pipelines import previews

    return {
        task.name: {name: previews.of(artifact) for name, artifact in task.outputs.items()}
        for task in run.tasks
        if task.outputs
    }


def show_previews(run: PipelineRun) -> None:
    """Print every artifact of a run for people."""
    for task, shown in previews_of(run).items():
        for name, preview in shown.items():
            artifact = next(one for one in run.tasks if one.name == task).outputs[name]
            print(f"\n{task}: {name} ({artifact.type.removeprefix('system.')}) {artifact.path}")
            _print(preview)


def _print(preview: Preview) -> None:
    for name, value in preview.numbers.items():
        print(f"  {name} = {value!r}")
    if preview.curve:
        best = max(preview.curve, key=lambda point: point[1] - point[0])
        print(f"  ROC curve of {len(preview.curve)} points; recall {best[1]:.3g} at false positive rate {best[0]:.3g}")
    if preview.rows and preview.kind == "classification":
        rows = [(label, *row) for label, row in zip(preview.labels, preview.rows, strict=False)]
        output.table(("true \\ predicted", *preview.labels), rows)
    elif preview.rows:
        output.table(preview.labels, preview.rows)
    elif preview.text:
        print("\n".join("  | " + line for line in preview.text.splitlines()[:12]))


def follow(store: Store, settings: Settings, run: str, task: str | None) -> None:
    """Print a run's logs as they grow, each line with its step and attempt, until the run has ended."""
    from ondol.pipelines import runner
    from ondol.store import runs

    read: dict[str, int] = {}
    while True:
        found = runs.get(store, run)
        going = found.state == "running" and runner.is_running(settings.home, found.id)
        for one in found.tasks:
            if one.log_path and not one.cached and task in (None, one.name):
                _print_new(Path(one.log_path), f"{one.name}#{one.attempt}", read, whole=not going)
        if not going:
            return
        time.sleep(_LOOK)


def _print_new(log: Path, label: str, read: dict[str, int], *, whole: bool) -> None:
    """Print what a log has got since it was read last: whole lines, and at the end what is left."""
    try:
        with log.open("rb") as file:
            file.seek(read.get(str(log), 0))
            new: Any = file.read()
    except OSError:
        return
    if not whole:
        new = new[: new.rfind(b"\n") + 1]
    read[str(log)] = read.get(str(log), 0) + len(new)
    for line in new.decode("utf-8", errors="replace").splitlines():
        sys.stdout.write(f"{label} | {line}\n")
    sys.stdout.flush()
