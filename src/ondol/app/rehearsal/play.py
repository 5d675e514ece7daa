"""Plays the drills one after the other and adds up the scorecard."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ondol.app.rehearsal import stage as stages
from ondol.app.rehearsal import traffic
from ondol.app.rehearsal.drills import REQUESTS, Drills, Outcome
from ondol.base import errors
from ondol.base.progress import Progress
from ondol.base.settings import Settings

_WORDS = {True: "", False: "FAILED: ", None: "open: "}


@dataclass(frozen=True, slots=True)
class Scorecard:
    """What the loop did about everything that went wrong."""

    model: str
    outcomes: tuple[Outcome, ...]
    seconds: float
    requests: int
    """Sent in one trial at most."""

    @property
    def passed(self) -> int:
        return sum(one.passed is True for one in self.outcomes)

    @property
    def failed(self) -> int:
        return sum(one.passed is False for one in self.outcomes)

    @property
    def open(self) -> tuple[str, ...]:
        """Drills that show neither."""
        return tuple(one.drill for one in self.outcomes if one.passed is None)

    @property
    def hurt(self) -> int:
        """Requests that got a worse answer than the champion's, or none."""
        return sum(one.hurt for one in self.outcomes)

    @property
    def missed(self) -> tuple[str, ...]:
        """Drills that the loop failed."""
        return tuple(one.drill for one in self.outcomes if one.passed is False)


def play(
    settings: Settings, model: str, watch: Progress, only: Sequence[str] = (), requests: int = REQUESTS
) -> Scorecard:
    """Play the drills on a copy of the project.

    :param only: drills whose name contains one of these; empty: all.
    :raises NotFoundError: NOF-451 when no model serves that could be rehearsed with.
    :raises UsageError: when no drill is called so.
    """
    began, name = time.monotonic(), stages.check(settings, model)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="ondol-drill-") as folder:
        watch.start("stage")
        with stages.opened(settings, name, Path(folder)) as stage:
            drills = Drills(stage, traffic.make(stage, stages.reference_rows(stage)), requests)
            chosen = [one for one in drills.all() if not only or any(part in one[0] for part in only)]
            if not chosen:
                known = ", ".join(title for title, _ in drills.all())
                raise errors.UsageError(f"no drill is called {only[0]!r}", way_out=f"There are: {known}.")
            watch.finish("stage", f"{name} is served at {stage.settings.data.url}")
            for title, run in chosen:
                watch.start(title)
                outcome = _tried(title, run)
                outcomes.append(outcome)
                watch.finish(title, f"{_WORDS[outcome.passed]}{outcome.happened}")
    return Scorecard(name, tuple(outcomes), time.monotonic() - began, requests)


def _tried(title: str, run: Callable[[], Outcome]) -> Outcome:
    """A drill that cannot be played is a line of the scorecard, too."""
    import httpx

    try:
        return run()
    except (errors.OndolError, OSError, httpx.HTTPError) as error:
        message = error.message if isinstance(error, errors.OndolError) else str(error)
        return Outcome(title, "is played", f"could not be played: {message}", None)
