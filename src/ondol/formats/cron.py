"""Cron expressions of five fields (minute, hour, day of month, month, day of week) in a time zone. Pure.

With `seconds`, a sixth field stands before them, as Kubeflow's schedules have it.

The rules are crontab(5)'s: `*`, lists, ranges, steps, names of months and days, Sunday is 0 and 7; when both days are
restricted, either of them is enough. A time that a change of clocks skips does not fire; a repeated one fires once.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from ondol.base import errors

_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_SECOND = ("second", 0, 59)
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7))
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_LONGEST = timedelta(days=366 * 8 + 2)  # 29 February, across a century that has none


@dataclass(frozen=True, slots=True)
class Cron:
    """When something is due."""

    text: str
    zone: ZoneInfo
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool
    """Whether one of day of month and day of week is enough."""

    seconds: frozenset[int] = frozenset({0})

    def latest(self, after: float, until: float) -> float | None:
        """Return the last time it was due in (after, until], or None; it catches up what was due earlier in between.

        :param after: seconds since the epoch.
        """
        moment = _minute(until)
        while (found := self._walk(moment, -1, _minute(after))) is not None:
            times = [found.timestamp() + second for second in self.seconds]
            if due := [one for one in times if after < one <= until]:
                return max(due)
            moment = found - timedelta(minutes=1)
        return None

    def next(self, after: float) -> float | None:
        """Return the next time it is due after a time; None when it never is (31 February)."""
        moment = _minute(after)
        while (found := self._walk(moment, 1, moment + _LONGEST)) is not None:
            times = [found.timestamp() + second for second in self.seconds]
            if due := [one for one in times if one > after]:
                return min(due)
            moment = found + timedelta(minutes=1)
        return None

    def _walk(self, moment: datetime, step: int, end: datetime) -> datetime | None:
        """Go through minutes, skipping days and hours in which nothing is due."""
        while (moment - end).total_seconds() * step <= 0:
            local = moment.astimezone(self.zone)
            if not self._day(local):
                moment = _edge_of_day(local, step)
            elif local.hour not in self.hours:
                moment += timedelta(minutes=(60 - local.minute) if step > 0 else -(local.minute + 1))
            elif local.minute not in self.minutes or local.fold:
                moment += timedelta(minutes=step)
            else:
                return moment
        return None

    def _day(self, local: datetime) -> bool:
        if local.month not in self.months:
            return False
        of_month, of_week = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return (of_month or of_week) if self.either else (of_month and of_week)


def _minute(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(second=0, microsecond=0)


def _edge_of_day(local: datetime, step: int) -> datetime:
    """Return the first minute of the next day, or the last one of the day before, in UTC."""
    midnight = datetime(local.year, local.month, local.day, tzinfo=local.tzinfo)
    if step < 0:
        return midnight.astimezone(UTC) - timedelta(minutes=1)
    after = local.date() + timedelta(days=1)
    return datetime(after.year, after.month, after.day, tzinfo=local.tzinfo).astimezone(UTC)


def is_cron(text: str) -> bool:
    """Whether a text is meant as a cron expression."""
    return text.startswith("@") or len(text.split()) == len(_FIELDS)


def parse(text: str, timezone: str = "UTC", where: str = "", *, seconds: bool = False) -> Cron:
    """Read an expression.

    :param timezone: an IANA name such as `Asia/Seoul`.
    :param seconds: a field for seconds stands first.
    :raises InputError: INP-452 naming the field that is wrong.
    """
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise _bad(f"no time zone {timezone!r}", where, "Write it like Asia/Seoul.") from None
    fields = _MACROS.get(text.strip().lower(), text).split()
    at = frozenset({0})
    if seconds and not text.startswith("@") and fields:
        at = _field(fields.pop(0), _SECOND, where)
    if len(fields) != len(_FIELDS):
        names = f"{'second, ' if seconds else ''}minute, hour, day, month, day of week"
        raise _bad(f"{text!r} has another number of fields than {5 + seconds}", where, f"Write {names}.")
    sets = [_field(*each, where=where) for each in zip(fields, _FIELDS, strict=True)]
    weekdays = frozenset(day % 7 for day in sets[4])
    either = not fields[2].startswith(("*", "?")) and not fields[4].startswith(("*", "?"))
    return Cron(text, zone, sets[0], sets[1], sets[2], sets[3], weekdays, either, at)


def _field(text: str, field: tuple[str, int, int], where: str) -> frozenset[int]:
    name, low, high = field
    found: set[int] = set()
    for part in text.lower().split(","):
        span, slash, step_text = part.partition("/")
        if slash and not (step_text.isascii() and step_text.isdigit() and int(step_text) > 0):
            raise _bad(f"{name}: {part!r} has no step", where, "Write it like */15.")
        first, dash, last = span.partition("-")
        if span in ("*", "?"):
            start, end = low, high
        else:
            start = _number(first, field, where)
            end = _number(last, field, where) if dash else (high if slash else start)
        if start > end:
            raise _bad(f"{name}: {part!r} runs backwards", where, f"{low} to {high}.")
        found.update(range(start, end + 1, int(step_text) if slash else 1))
    return frozenset(found)


def _number(text: str, field: tuple[str, int, int], where: str) -> int:
    name, low, high = field
    names = _MONTHS if name == "month" else _DAYS if name == "day of week" else {}
    value = names.get(text, int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1)
    if not low <= value <= high:
        raise _bad(f"{name}: {text!r} is not {low} to {high}", where, f"{low} to {high}.")
    return value


def _bad(message: str, where: str, way_out: str) -> errors.InputError:
    return errors.InputError(message, where=where, way_out=way_out, code="INP-452")
