"""`ondol pipeline schedule|stop|retry`: asking for runs that the control process carries out."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ondol.base import clock, errors
from ondol.cli import context, output

if TYPE_CHECKING:
    from ondol.records.kfp import RecurringRun

_SPAN = re.compile(r"(\d+)\s*(s|m|h|d)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group("schedule")
def schedule() -> None:
    """Run a pipeline again and again; `ondol up` does it, and KFP's clients see it.

    \b
    Examples:
      ondol pipeline schedule create train.py --cron "0 0 3 * * *" -p epochs=10
      ondol pipeline schedule create train.yaml --every 6h --no-catchup
      ondol pipeline schedule list
      ondol pipeline schedule disable rec-01m8f0g6vr
    """


@schedule.command("create")
@click.argument("pipeline", type=click.Path(path_type=Path))
@click.option("--cron", default="", metavar="EXPRESSION", help="Six fields, seconds first; CRON_TZ=ZONE may precede.")
@click.option("--every", default="", metavar="SPAN", help="An interval such as 90s, 15m, 6h, 1d.")
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the pipeline.")
@click.option("--pipeline", "which", default="", metavar="NAME", help="Which one, when the file has several.")
@click.option("--name", default="", help="What its runs are called (default: the pipeline's name).")
@click.option("--max-concurrency", default=1, show_default=True, help="Runs under way at the same time.")
@click.option("--no-catchup", is_flag=True, help="Of missed runs, run only the latest.")
@output.json_option
def create(
    pipeline: Path,
    cron: str,
    every: str,
    params: tuple[str, ...],
    which: str,
    name: str,
    max_concurrency: int,
    no_catchup: bool,
    as_json: bool,
) -> None:
    """Keep a pipeline as it is compiled now, and run it when it is due.

    \b
    Example:
      ondol pipeline schedule create train.py --cron "0 30 9 * * MON-FRI" -p rows=500
    """
    from ondol.base import ids
    from ondol.cli.run import pairs
    from ondol.pipelines import compiling, schedules, values
    from ondol.records.kfp import RecurringRun, Trigger
    from ondol.store import kfp

    if not 1 <= max_concurrency <= schedules.MOST_CONCURRENT:
        raise errors.UsageError(f"--max-concurrency {max_concurrency} is not 1 to {schedules.MOST_CONCURRENT}")
    trigger = Trigger(cron=cron, interval_seconds=_seconds(every))
    schedules.check(trigger)
    now = time.time()
    with context.open_store() as store:
        compiled = compiling.load(pipeline, store, which)
        parameters = values.arguments(compiled.pipeline, pairs(params), text=True)
        made = RecurringRun(
            ids.new_id("rec"),
            "default",
            name or compiled.pipeline.name,
            trigger,
            spec=compiled.spec(),
            parameters=parameters,
            max_concurrency=max_concurrency,
            no_catchup=no_catchup,
            created_at=now,
            updated_at=now,
        )
        kfp.add(store, made)
    output.emit(made, as_json, lambda: print(f"{made.id}  {made.display_name}: first run {_next(made)}"))


def _seconds(text: str) -> int:
    if not text:
        return 0
    if (read := _SPAN.fullmatch(text.strip())) is None or not int(read[1]):
        raise errors.UsageError(f"{text!r} is not a span of time", way_out="Write it like 90s, 15m, 6h or 1d.")
    return int(read[1]) * _UNITS[read[2]]


def _next(one: RecurringRun) -> str:
    from ondol.pipelines import schedules

    found = schedules.next_due(one, max(one.cursor, time.time())) if one.enabled else None
    return clock.iso(found)[:19].replace("T", " ") + " UTC" if found else "-"


@schedule.command("list")
@output.json_option
def list_schedules(as_json: bool) -> None:
    """List what is run again and again, with the next time.

    \b
    Example:
      ondol pipeline schedule list
    """
    from ondol.records.kfp import RecurringRun
    from ondol.store import kfp

    with context.open_store() as store:
        found = kfp.every(store, RecurringRun)

    def show() -> None:
        rows = [
            (
                one.id,
                one.display_name,
                one.trigger.cron or f"every {one.trigger.interval_seconds} s",
                "on" if one.enabled else "off",
                _next(one),
            )
            for one in found
        ]
        output.table(
            ("schedule", "pipeline", "when", "is", "next"), rows, empty="none yet: ondol pipeline schedule create"
        )

    output.emit(found, as_json, show)


def _switch(identifier: str, enabled: bool, as_json: bool) -> None:
    from dataclasses import replace

    from ondol.records.kfp import RecurringRun
    from ondol.store import kfp

    with context.open_store() as store:
        one = kfp.change(
            store, RecurringRun, identifier, lambda one: replace(one, enabled=enabled, updated_at=time.time())
        )
    said = f"on: next run {_next(one)}" if enabled else "off"
    output.emit(one, as_json, lambda: print(f"{one.id} is {said}"))


@schedule.command("enable")
@click.argument("schedule_id", metavar="SCHEDULE")
@output.json_option
def enable(schedule_id: str, as_json: bool) -> None:
    """Switch a schedule on; what was missed is caught up unless it was made with --no-catchup.

    \b
    Example:
      ondol pipeline schedule enable rec-01m8f0g6vr3bcabhx6m5
    """
    _switch(schedule_id, True, as_json)


@schedule.command("disable")
@click.argument("schedule_id", metavar="SCHEDULE")
@output.json_option
def disable(schedule_id: str, as_json: bool) -> None:
    """Switch a schedule off; runs under way go on.

    \b
    Example:
      ondol pipeline schedule disable rec-01m8f0g6vr3bcabhx6m5
    """
    _switch(schedule_id, False, as_json)


@schedule.command("delete")
@click.argument("schedule_id", metavar="SCHEDULE")
@output.json_option
def delete(schedule_id: str, as_json: bool) -> None:
    """Forget a schedule; its runs stay.

    \b
    Example:
      ondol pipeline schedule delete rec-01m8f0g6vr3bcabhx6m5
    """
    from ondol.records.kfp import RecurringRun
    from ondol.store import kfp

    with context.open_store() as store:
        kfp.remove(store, RecurringRun, schedule_id)
    output.emit({"deleted": schedule_id}, as_json, lambda: print(f"{schedule_id} deleted"))


@click.command("stop")
@click.argument("run")
@output.json_option
def stop(run: str, as_json: bool) -> None:
    """Stop a run with everything it started; `ondol pipeline retry` goes on with it later.

    \b
    Example:
      ondol pipeline stop latest
    """
    from ondol.pipelines import requests, runner

    settings = context.load_settings()
    with context.open_store(settings) as store:
        identifier = _whole_id(store, run)
        requests.stop(store, settings.home, identifier)
        if pid := runner.runner_of(settings.home, identifier):  # so that it ends where no control runs, too
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
    output.emit({"run": identifier, "asked": "stop"}, as_json, lambda: print(f"{identifier} is being stopped"))


@click.command("retry")
@click.argument("run")
@output.json_option
def retry(run: str, as_json: bool) -> None:
    """Let the control process go on with a run that failed or was stopped; `ondol run --resume` does it here and now.

    \b
    Example:
      ondol pipeline retry latest
    """
    from ondol.app import running
    from ondol.pipelines import requests

    settings = context.load_settings()
    with context.open_store(settings) as store:
        identifier = _whole_id(store, run)
        requests.retry(store, settings.home, identifier)

    def show() -> None:
        print(f"{identifier} goes on under `ondol up`")
        if running.find(settings.home) is None:
            print(f"  which does not run here: start it, or go on without it: ondol run --resume {identifier}")

    output.emit({"run": identifier, "asked": "retry"}, as_json, show)


def _whole_id(store: object, run: str) -> str:
    """Return a run's id, also from `latest` or a part of it; a request that has not begun is known by its whole id."""
    from ondol.records.kfp import RunRequest
    from ondol.store import kfp, runs
    from ondol.store.connection import Store

    assert isinstance(store, Store)
    return run if kfp.find(store, RunRequest, run) else runs.get(store, run).id
