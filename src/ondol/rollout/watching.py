"""One judge per rollout, kept in memory and fed with what is new; built again from the rows when it is not there.

Must not decide or write: losing all of this loses nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

from ondol.records.rollout import Rollout
from ondol.rollout.panel import Panel
from ondol.rollout.verdicts import JudgeVerdict
from ondol.store import observations, rollouts
from ondol.store.connection import Store

_KEPT = 64  # judges; a forgotten one costs a read of its rollout's rows


class _Watch:
    def __init__(self, rollout: Rollout) -> None:
        self.judge = Panel.of(rollout)
        self.position = 0
        self.label_position = 0
        self.guard = threading.Lock()
        self.idle: JudgeVerdict | None = None
        """What was said when there was nothing new since."""


_watches: OrderedDict[tuple[str, str], _Watch] = OrderedDict()
_guard = threading.Lock()


def verdict(store: Store, rollout: Rollout, brief: bool = False) -> JudgeVerdict:
    """Return the judge's verdict on all that is logged by now; reads only what is new.

    :param brief: leave the intervals out of the evidence while there is nothing to do: for those who look often.
    """
    key = (store.database, rollout.id)
    with _guard:
        watch = _watches.get(key) or _Watch(rollout)
        _watches[key] = watch
        _watches.move_to_end(key)
        while len(_watches) > _KEPT:
            _watches.popitem(last=False)
    with watch.guard:
        news = observations.news(store, rollout.id, watch.position, watch.label_position)
        # Read after the requests: whoever moved the weight under which they were served has written so by now.
        fresh = rollouts.get(store, rollout.id)
        watch.judge.know(fresh.step_times, fresh.dropped)
        try:
            _feed(watch, news)
        except BaseException:
            forget(store, rollout.id)  # half-fed: the next look starts from the rows
            raise
        if brief and watch.idle is not None and not news.any:
            return watch.idle
        found = watch.judge.verdict(intervals=not brief)
        if brief and found.action != "go_on":
            found = watch.judge.verdict()
        watch.idle = found if found.action == "go_on" else None
    positions = {"observations": news.position, "labels": news.label_position}
    return replace(found, evidence={**found.evidence, "positions": positions})


def _feed(watch: _Watch, news: observations.News) -> None:
    for one in news.served:
        watch.judge.add(one)
    for one in news.labelled:
        watch.judge.add_label(one)
    for one in news.signalled:
        watch.judge.add_signals(one)
    for unit, name, value in news.about_units:
        watch.judge.add_unit_signal(unit, name, value)
    watch.position, watch.label_position = news.position, news.label_position


def forget(store: Store, rollout: str) -> None:
    """Drop a judge: the next look reads the rollout's rows from the start."""
    with _guard:
        _watches.pop((store.database, rollout), None)
