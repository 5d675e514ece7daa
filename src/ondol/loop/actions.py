"""What the conductor should do next, as a pure function of what is on record.

Level-triggered: it looks at the state, not at events, so that a crash, a restart or a second conductor changes nothing.
Must not do I/O.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelState:
    """What is on record about one model."""

    model: str
    stable: str = ""
    """Digest of the release that serves; empty before the first."""

    on_trial: str = ""
    """Digest of the candidate of a running rollout."""

    waiting: tuple[str, ...] = ()
    """Releases that passed the gate and were never put on trial, oldest first."""

    drifted: str = ""
    """The newest finding of drift that no retraining has answered; empty when there is none."""

    retraining: bool = False
    held: str = ""
    """Why somebody holds retraining back; empty when nobody does."""

    retrain_on_drift: bool = False
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
    """Go through the loop again because of a finding."""

    model: str
    because: str


@dataclass(frozen=True, slots=True)
class PointAlias:
    """Let the registry's alias say what really serves."""

    model: str
    version: str


Action = StartRollout | Supersede | Retrain | PointAlias


def next_actions(state: ModelState) -> tuple[Action, ...]:
    """Return what to do about one model now; nothing when everything is as it should be."""
    actions: list[Action] = []
    if state.waiting and state.stable and not state.on_trial:
        newest = state.waiting[-1]
        actions += [Supersede(state.model, older, newest) for older in state.waiting[:-1]]
        actions.append(StartRollout(state.model, newest))
    elif state.drifted and state.retrain_on_drift and not (state.held or state.retraining or state.on_trial):
        actions.append(Retrain(state.model, state.drifted))
    if state.serving_version and state.champion and state.serving_version != state.champion:
        actions += _about_alias(state, bool(actions))
    return tuple(actions)


def _about_alias(state: ModelState, busy: bool) -> list[Action]:
    """An alias that names another version is a proposal: it is tried once, and else put back to what serves."""
    if state.on_trial or busy:
        return []
    if state.proposed:
        return [StartRollout(state.model, state.proposed)]
    return [PointAlias(state.model, state.serving_version)]
