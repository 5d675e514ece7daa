"""A drift window that is too large to be read as a whole: counted as requests come, judged when it is full.

What is kept between two looks are a sketch and how far it counts. A release that begins to serve begins a new window.
Must not read requests: it is given them.
"""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ondol.base import ids
from ondol.data import drift, sketches
from ondol.data.sketches import Cells, Sketch
from ondol.loop import reference
from ondol.records import codec
from ondol.records.project import MonitorSpec
from ondol.records.rollout import Decision, Route
from ondol.store import counters, rollouts
from ondol.store.connection import Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(slots=True)
class Counting:
    """A window of one service that is not full yet."""

    route: Route
    spec: MonitorSpec
    before: Sketch
    """What it is compared with."""

    sketch: Sketch
    start: int
    end: int
    """Position of the last request that is counted."""

    requests: int
    """All of the window, also those that another release answered."""

    good: str
    """Sketch of the release's newest window without drift, as text."""

    known: dict[str, Any] | None
    """What was on record when it was resumed."""

    @classmethod
    def resume(cls, store: Store, route: Route, kept: pd.DataFrame, spec: MonitorSpec, position: int) -> Counting:
        """Go on where the last look stopped.

        :param kept: the release's reference.
        """
        cells, blocks = sketches.cells_of(kept), max(spec.blocks, 1)
        on_record = known = counters.fact(store, _fact(route.service))
        key = {"release": route.stable, "monitor": codec.plain(spec)}
        if known is None or known["key"] != key:
            known = {"key": key, "start": position, "end": position, "requests": 0, "sketch": "", "good": ""}
        before = sketches.of_frame(kept, cells, blocks)
        if spec.reference == "last-good" and known["good"]:
            before = _read(known["good"], cells, blocks)
        sketch = _read(known["sketch"], cells, blocks)
        return cls(
            route, spec, before, sketch, known["start"], known["end"], known["requests"], known["good"], on_record
        )

    def add(self, rows: pd.DataFrame, requests: int, end: int) -> None:
        """Count a page of requests.

        :param rows: what the release that serves has answered of it, as a table with the reference's columns.
        :param requests: how many there are in the page.
        :param end: position of the last one.
        """
        if len(rows):
            at = self.requests + np.arange(len(rows)) * requests // len(rows)
            self.sketch.add(rows, at * self.sketch.blocks // self.spec.window)
        self.requests += requests
        self.end = end

    def judge(self, least: float) -> Decision:
        """Return the decision about the full window."""
        spec = self.spec
        evidence: dict[str, Any] = {
            "release": self.route.stable, "window": [self.start, self.end], "monitor": codec.plain(spec),
            "reference": {"kind": spec.reference, "rows": self.before.rows}, "counted": True,
        }  # fmt: skip
        if self.sketch.rows < least:
            verdict = "not-enough-data"
            said = f"{self.sketch.rows:,} of {spec.window:,} requests were answered by the release that serves"
        else:
            options = drift.Options(alpha=spec.alpha, effect=spec.effect)
            report = sketches.compare(self.before, self.sketch, reference.PREDICTION, options)
            verdict, names = "drift" if report.drifted else "stable", report.names()
            columns = {one.column for one in report.columns}
            said = f"{len(names)} of {len(columns)} columns drifted in {self.sketch.rows:,} requests"
            said += f": {', '.join(names[:5])}" if names else ""
            evidence["report"] = codec.plain(report)
            if verdict == "stable":
                self.good = _text(self.sketch)
        return Decision(ids.new_id("decision"), time.time(), self.route.service, "drift", verdict, said, evidence)

    def keep(self, store: Store, decision: Decision | None) -> bool:
        """Remember what is counted, at once with the decision about a full window; the next one begins empty.

        Return False, and change nothing, when another conductor has counted meanwhile.
        """
        full, fact = decision is not None, _fact(self.route.service)
        made = {
            "key": {"release": self.route.stable, "monitor": codec.plain(self.spec)},
            "start": self.end if full else self.start,
            "end": self.end,
            "requests": 0 if full else self.requests,
            "sketch": "" if full else _text(self.sketch),
            "good": self.good,
        }
        with store.write() as tx:
            if counters.fact_in(tx, fact) != self.known:
                return False
            if decision is not None:
                rollouts.decide_in(tx, decision)
            counters.put_fact_in(tx, fact, made)
            # Requests may be moved to files once they are counted, and are not counted again.
            counters.put_fact_in(tx, f"watch/{self.route.service}", self.end)
        return True


def _fact(service: str) -> str:
    return f"watch/{service}/counting"


def _text(sketch: Sketch) -> str:
    return base64.b64encode(sketch.to_bytes()).decode()


def _read(text: str, cells: tuple[Cells, ...], blocks: int) -> Sketch:
    return Sketch.from_bytes(base64.b64decode(text), cells, blocks) if text else Sketch(cells, blocks)
