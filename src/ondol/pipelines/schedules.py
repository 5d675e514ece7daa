"""When recurring runs are due, and asking for them exactly once.

A due run and the cursor that has passed it are written in one transaction, so that a kill neither loses nor doubles it.
The rules are those of KFP's ScheduledWorkflow: an interval counts from the start, `max_concurrency` bounds how many are
under way, missed ones are caught up one after the other unless `no_catchup`, which runs only the latest.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace

from ondol.base import errors, ids
from ondol.formats import cron
from ondol.formats.cron import Cron
from ondol.records.kfp import PipelineVersion, RecurringRun, RunRequest, Trigger
from ondol.store import kfp
from ondol.store.connection import Store, Tx

ZONE_VARIABLE = "CRON_SCHEDULE_TIMEZONE"
"""KFP's own variable for the time zone of cron expressions; `CRON_TZ=Asia/Seoul …` in an expression wins."""

MOST_CONCURRENT = 10  # KFP's own bound


def cron_of(text: str) -> Cron:
    """Read KFP's cron expression: six fields, seconds first, or `@daily` and the like.

    :raises InputError: naming the field that is wrong.
    """
    zone = os.environ.get(ZONE_VARIABLE, "UTC")
    if text.startswith(("CRON_TZ=", "TZ=")):
        named, _, text = text.partition(" ")
        zone = named.partition("=")[2]
    return cron.parse(text.strip(), zone, where="trigger.cron_schedule.cron", seconds=True)


def check(trigger: Trigger) -> None:
    """Refuse a trigger that never fires.

    :raises InputError: INP-531.
    """
    if bool(trigger.cron) == bool(trigger.interval_seconds):
        raise errors.InputError(
            "a trigger has either a cron expression or an interval", where="trigger", code="INP-531"
        )
    if trigger.interval_seconds < 0:
        raise errors.InputError("an interval is at least 1 second", where="trigger.periodic_schedule", code="INP-531")
    if trigger.cron and cron_of(trigger.cron).next(trigger.start) is None:
        raise errors.InputError(f"{trigger.cron!r} is never due", where="trigger.cron_schedule.cron", code="INP-531")
    if trigger.start and trigger.end and trigger.end < trigger.start:
        raise errors.InputError("it ends before it starts", where="trigger.end_time", code="INP-531")


def next_due(recurring: RecurringRun, after: float | None = None) -> float | None:
    """Return the first time it is due after its cursor, or after another time; None when it is not due any more."""
    trigger = recurring.trigger
    base = max(trigger.start, 0.0) or recurring.created_at
    since = max(recurring.cursor if after is None else after, base)
    if trigger.cron:
        # A run is due at its start too, if the expression says so: look from just before it.
        found = cron_of(trigger.cron).next(since if since > base or not trigger.start else since - 1)
    else:
        found = base + trigger.interval_seconds * (math.floor((since - base) / trigger.interval_seconds) + 1)
    return None if found is None or (trigger.end and found > trigger.end) else found


def due(recurring: RecurringRun, now: float, free: int) -> list[float]:
    """Return the times to ask for runs now, oldest first.

    :param free: how many more may be under way.
    """
    if free < 1:
        return []
    if recurring.no_catchup:
        latest = _latest(recurring, now)
        return [] if latest is None else [latest]
    times: list[float] = []
    moment = next_due(recurring)
    while moment is not None and moment <= now and len(times) < free:
        times.append(moment)
        moment = next_due(recurring, moment)
    return times


def _latest(recurring: RecurringRun, now: float) -> float | None:
    first = next_due(recurring)
    if first is None or first > now:
        return None
    until = min(now, recurring.trigger.end or now)
    if recurring.trigger.cron:
        return cron_of(recurring.trigger.cron).latest(first, until) or first
    return first + math.floor((until - first) / recurring.trigger.interval_seconds) * recurring.trigger.interval_seconds


def ask(store: Store, now: float, under_way: Callable[[str], int]) -> list[RunRequest]:
    """Ask for every run that is due; safe to call as often as one likes, from anywhere.

    :param under_way: how many runs of a recurring run have not ended.
    """
    asked: list[RunRequest] = []
    for recurring in kfp.every(store, RecurringRun):
        if not recurring.enabled or recurring.error:
            continue
        first = next_due(recurring)
        if first is None or first > now:
            continue
        free = recurring.max_concurrency - under_way(recurring.id)
        if times := due(recurring, now, free):
            with store.write() as tx:
                asked += _ask_in(tx, recurring, times)
    return asked


def _ask_in(tx: Tx, seen: RecurringRun, times: list[float]) -> list[RunRequest]:
    requests = [_request(seen, at) for at in times]
    moved = False

    def pass_by(now: RecurringRun) -> RecurringRun:
        nonlocal moved
        moved = now.enabled and now.cursor == seen.cursor  # nobody else has asked meanwhile
        return replace(now, cursor=times[-1]) if moved else now

    kfp.change_in(tx, RecurringRun, seen.id, pass_by)
    if not moved:
        return []
    for request in requests:
        kfp.add_in(tx, request)
    return requests


def _request(recurring: RecurringRun, at: float) -> RunRequest:
    return RunRequest(
        ids.new_id("run"),
        recurring.experiment,
        recurring.display_name,
        recurring.description,
        recurring.spec,
        recurring.pipeline,
        recurring.version,
        recurring.parameters,
        recurring.id,
        created_at=at,
        scheduled_at=at,
    )


def spec_of(store: Store, asked: RunRequest | RecurringRun) -> dict[str, object]:
    """Return the pipeline that a request or a recurring run is for: its own, the version's, or the newest version's.

    :raises NotFoundError: when that version is gone.
    """
    if asked.spec:
        return asked.spec
    if asked.version:
        return kfp.get(store, PipelineVersion, asked.version).spec
    versions = kfp.every(store, PipelineVersion, asked.pipeline)
    if not versions:
        raise errors.NotFoundError(f"pipeline {asked.pipeline!r} has no version", code="NOF-530")
    return versions[0].spec
