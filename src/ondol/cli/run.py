"""`ondol run`: run a KFP pipeline file here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ondol.base import errors
from ondol.cli import context, output


class Lines:
    """Progress as lines: one when a step starts (on a terminal, where it is replaced), one when it has ended."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._open = False

    def _say(self, text: str, *, passing: bool = False) -> None:
        if self._open:
            sys.stderr.write("\r\x1b[2K")
        self._open = passing and self._live
        if self._open:
            sys.stderr.write(text)
        elif not passing:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def start(self, stage: str, total: float | None = None) -> None:
        self._say(f"{stage}: {total:g} steps" if total else stage)

    def advance(self, stage: str, amount: float = 1, note: str = "") -> None:
        if amount:
            mark = "x" if ": failed" in note else ("=" if note.endswith(": reused") else "+")
            self._say(f"  {mark} {note}")
        else:
            self._say(f"  . {note}", passing=note.endswith(": running"))

    def finish(self, stage: str, summary: str = "") -> None:
        self._say(f"{stage}: done, {summary}")


def pairs(given: tuple[str, ...]) -> dict[str, str]:
    """Read `NAME=VALUE` options.

    :raises UsageError: for one without `=`.
    """
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise errors.UsageError(f"{text!r} is not name=value", way_out="Write it like -p epochs=10.")
        pairs[name.strip()] = value
    return pairs


@click.command()
@click.argument("pipeline", required=False, type=click.Path(path_type=Path))
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the pipeline.")
@click.option("--pipeline", "name", default="", metavar="NAME", help="Which one, when the file has several.")
@click.option("--dry-run", is_flag=True, help="Say which steps would be reused and which would run, and why.")
@click.option("--no-cache", is_flag=True, help="Run every step, reuse nothing.")
@click.option("--resume", metavar="RUN", help="Go on with a run that failed or was interrupted.")
@click.option("--debug", metavar="STEP", help="Run up to this step, then stop in its function with pdb.")
@click.option(
    "--in-process/--no-in-process",
    default=None,
    help="Steps share warm processes: faster, but modules keep their state.",
)
@click.option(
    "--slots", type=click.IntRange(min=1), metavar="N", help="Steps at the same time (default: one per processor)."
)
@output.json_option
def command(
    pipeline: Path | None,
    params: tuple[str, ...],
    name: str,
    dry_run: bool,
    no_cache: bool,
    resume: str | None,
    debug: str | None,
    in_process: bool | None,
    slots: int | None,
    as_json: bool,
) -> None:
    """Run a KFP pipeline: a .py with a @dsl.pipeline, or the .yaml that kfp compiled.

    \b
    Examples:
      ondol run train.py -p data=flights.csv -p epochs=10
      ondol run pipeline.yaml --dry-run       what would be reused, and why not the rest
      ondol run --resume run-01m842pt         go on after a failure or a kill
      ondol run train.py --debug train        stop in the step's function, with its real inputs
      ondol run train.py --in-process         many small steps: no process for each of them

    Steps run in processes of their own, independent ones at the same time. With --in-process they run one after the
    other in warm processes, one per slot: what a step leaves in its modules the next one finds. A step with the same
    code, parameters, input content and environment as before is reused. Logs and artifacts are kept in the home's
    `runs/` folder. A resumed run goes on with the --in-process, --slots and --no-cache that it began with.
    """
    from ondol.app import running
    from ondol.backends.local import model_source
    from ondol.base import progress as ports
    from ondol.pipelines import runner

    if pipeline is None and not resume:
        raise errors.UsageError("no pipeline file", way_out="ondol run PIPELINE.py, or --resume RUN.")
    settings = context.load_settings()
    given = pairs(params)
    with context.open_store(settings) as store:
        if dry_run:
            if pipeline is None:
                raise errors.UsageError("--dry-run needs the pipeline file", way_out="ondol run PIPELINE.py --dry-run")
            _plan(pipeline, given, name, no_cache, as_json, store, settings)
            return
        progress: ports.Progress = ports.SILENT if as_json else Lines()
        finished = runner.run(
            pipeline or Path(),
            given,
            store=store,
            settings=settings,
            progress=progress,
            use_cache=False if no_cache else None,
            resume=resume,
            pipeline=name,
            slots=slots,
            environ=running.tracking(settings),
            text_parameters=True,
            registry=model_source.for_importers(settings),
            debug=debug or "",
            in_process=in_process,
            origin="" if debug else "cli",  # `ondol up` takes up what was killed, but has no terminal for a debugger
        )
        output.emit(finished, as_json, lambda: print(f"ondol pipeline show {finished.id}"))


def _plan(
    pipeline: Path, given: dict[str, str], name: str, no_cache: bool, as_json: bool, store: Any, settings: Any
) -> None:
    from ondol.backends.local import model_source
    from ondol.pipelines import compiling, plan, values

    registry = model_source.for_importers(settings)
    compiled = compiling.load(pipeline, store, name)
    arguments = values.arguments(compiled.pipeline, given, text=True)
    steps = plan.plan(compiled, arguments, store=store, settings=settings, use_cache=not no_cache, registry=registry)

    def show() -> None:
        output.table(("step", "would", "why"), [(step.name, step.action, step.reason) for step in steps])
        for note in compiled.pipeline.notes:
            print(f"note: {note}")

    output.emit({"pipeline": compiled.pipeline.name, "steps": steps, "notes": compiled.pipeline.notes}, as_json, show)
