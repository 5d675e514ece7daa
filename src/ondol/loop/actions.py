"""What the conductor should do next, as a pure function of what is on record.

Level-triggered: it looks at the state, not at events, so that a crash, a restart or a second conductor changes nothing.
Must not do I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ondol.base import clock, duration
from ondol.records.project import RetrainSpec
from ondol.records.signal import Retraining, Signal


@dataclass(frozen=True, slots=True)
class ModelState:
    """What is on record about one model or application."""

    model: str
    stable: str = ""
    """Digest of the release that serves; empty before the first."""

    on_trial: str = ""
    """Digest of the candidate of a running rollout."""

    waiting: tuple[str, ...] = ()
    """Releases that passed the gate and were never put on trial, oldest first."""

    signals: tuple[Signal, ...] = ()
    """Reasons to retrain that nobody answers yet, oldest first."""

    retraining: Retraining | None = None
    """The answer that has not ended."""

    walking: bool = False
    """Whether some process walks round its loop now."""

    verdict: str = ""
    """The gate's verdict on the candidate of `retraining`, once there is one."""

    ended_at: float = 0.0
    """When the last retraining ended, seconds since the epoch."""

    held: str = ""
    """Why somebody holds retraining back; empty when nobody does."""

    policy: RetrainSpec = field(default_factory=RetrainSpec)
    now: float = 0.0
    can_retrain: bool = True
    """Whether there is somebody who would walk."""

    champion: str = ""
    """Version the alias `champion` points to."""

    proposed: str = ""
    """Release of the version that the alias names, when it was never on trial: somebody proposes it."""

    serving_version: str = ""
    """Registered version of the release that serves; empty when it is not a registered one."""


@dataclass(frozen=True, slots=True)
class StartRollout:
    """Put a release on trial against the one that serves."""

    model: str
    release: str


@dataclass(frozen=True, slots=True)
class Supersede:
    """A release that waited is not tried any more: a newer one passed its gate."""

    model: str
    release: str
    by: str


@dataclass(frozen=True, slots=True)
class Retrain:
    """Answer signals by going through the loop again."""

    model: str
    signals: tuple[Signal, ...]


@dataclass(frozen=True, slots=True)
class WalkAgain:
    """A retraining whose walk failed or vanished is walked again."""

    model: str
    retraining: Retraining


@dataclass(frozen=True, slots=True)
class Settle:
    """A retraining has come to its gate, or is not tried any more."""

    model: str
    retraining: Retraining
    verdict: str
    """The gate's; empty: given up."""


@dataclass(frozen=True, slots=True)
class PointAlias:
    """Let the registry's alias say what really serves."""

    model: str
    version: str


Action = StartRollout | Supersede | Retrain | WalkAgain | Settle | PointAlias


def next_actions(state: ModelState) -> tuple[Action, ...]:
    """Return what to do about one model now; nothing when everything is as it should be."""
    actions: list[Action] = []
    if state.retraining is not None and state.verdict:
        actions.append(Settle(state.model, state.retraining, state.verdict))
    elif state.waiting and state.stable and not state.on_trial:
        newest = state.waiting[-1]
        actions += [Supersede(state.model, older, newest) for older in state.waiting[:-1]]
        actions.append(StartRollout(state.model, newest))
    else:
        actions += _about_retraining(state)
    if state.serving_version and state.champion and state.serving_version != state.champion:
        actions += _about_alias(state, bool(actions))
    return tuple(actions)


def _about_retraining(state: ModelState) -> list[Action]:
    if not state.can_retrain or state.walking:
        return []
    if state.retraining is not None:
        if state.retraining.attempts >= state.policy.attempts and state.now >= state.retraining.next_at:
            return [Settle(state.model, state.retraining, "")]
        if state.held or state.on_trial or state.now < state.retraining.next_at:
            return []
        return [WalkAgain(state.model, state.retraining)]
    if state.held or state.on_trial or not state.signals or state.now < earliest(state):
        return []
    return [Retrain(state.model, state.signals)]


def earliest(state: ModelState) -> float:
    """Return when the signals may be answered: by hand at once, else after the debounce and the cool-down."""
    if any(one.kind == "hand" for one in state.signals):
        return 0.0
    first = min((one.at for one in state.signals), default=0.0)
    cool_down = state.ended_at + duration.seconds(state.policy.cool_down) if state.ended_at else 0.0
    return max(first + duration.seconds(state.policy.debounce), cool_down)


def _about_alias(state: ModelState, busy: bool) -> list[Action]:
    """An alias that names another version is a proposal: it is tried once, and else put back to what serves."""
    if state.on_trial or busy:
        return []
    if state.proposed:
        return [StartRollout(state.model, state.proposed)]
    return [PointAlias(state.model, state.serving_version)]


def waits_for(state: ModelState) -> str:
    """Return in one sentence what the loop of a model waits for."""
    if next_actions(state):
        return "the conductor's next look, within some seconds"
    if not state.stable:
        return f"a first release: `ondol loop run {state.model}` makes one"
    if state.on_trial:
        return f"the verdict on the candidate: `ondol rollout status {state.model}`"
    if state.walking:
        return "the walk that is going on to end"
    if (state.signals or state.retraining) and state.held:
        return f"somebody to release retraining, which is held: {state.held}"
    if state.retraining is not None:
        return _next_walk(state, state.retraining)
    if state.signals:
        reasons = ", ".join(sorted({one.kind for one in state.signals}))
        return f"debounce and cool-down to pass before it answers {reasons}, {_at(earliest(state), state.now)}"
    heard = ", ".join(state.policy.on)
    if not heard:
        return "somebody to run the loop: ondol.yaml says no `retrain.on`"
    return f"a reason to retrain ({heard})" + (
        f"; none is answered, retraining is held: {state.held}" if state.held else ""
    )


def _next_walk(state: ModelState, going_on: Retraining) -> str:
    """Say what follows a walk that does not go on now: it is just beginning, or it failed."""
    begun, most = going_on.attempts, state.policy.attempts
    then = "it is given up" if begun >= most else "the next one begins"
    return f"walk {begun} of {most} to begin; if it failed (`logs/loop.log`), {then} {_at(going_on.next_at, state.now)}"


def _at(moment: float, now: float) -> str:
    return f"in {duration.said(max(moment - now, 0.0))}, at {clock.iso(moment)}"
