"""Goes round the loop by itself: looks at what is on record, does what `actions.next_actions` says, waits, looks again.

Level-triggered: everything it knows it reads afresh, everything it does may be done twice. It may be killed anywhere.
What it cannot do itself (turn resources into servers, start processes) it is given by the composition root.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from ondol.base import clock, duration, errors, hashing, ids
from ondol.base.settings import Settings
from ondol.formats import project as projects
from ondol.loop import actions, alarms, quality, standing, watch
from ondol.loop import signals as signalling
from ondol.loop.actions import Action, ModelState
from ondol.loop.questions import Questions
from ondol.monitoring import pulse, retention
from ondol.records.project import Project, RetrainSpec
from ondol.records.retrieval import IndexOptions
from ondol.records.rollout import Decision
from ondol.records.signal import Retraining, RetrainingState
from ondol.registry.models import RegisteredModel
from ondol.retrieval import embedding, pruning
from ondol.rollout import controller
from ondol.store import releases, rollouts, routes, signals
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

_log = logging.getLogger(__name__)
_TIDY = 60.0  # seconds between rounds of moving and removing what is old
_FAST, _SLOW = 0.25, 2.0  # seconds between looks at rollouts and resources; at aliases, drift and releases that wait


class Aliases(Protocol):
    """What the conductor needs of the registry; it may be away (MLflow is still starting)."""

    def mirror(self) -> int: ...

    def models(self) -> list[RegisteredModel]: ...

    def set_alias(self, name: str, alias: str, version: str) -> None: ...


class Walker(Protocol):
    """Somebody else's process that walks round the loop."""

    def start(self, model: str, because: str) -> None: ...

    def running(self, model: str) -> bool: ...


@dataclass(slots=True)
class Hands:
    """What the conductor is given to act with."""

    reconcile: Sequence[Callable[[], object]] = ()
    """Controllers of resources, called every tick."""

    registry: Aliases | None = None
    retraining: Walker | None = None
    errors: dict[str, str] = field(default_factory=dict)
    """What failed last, by what was being done: said once, not every tick."""


class Conductor:
    """One conductor; several may run, the database keeps them from doing anything twice."""

    def __init__(self, store: Store, settings: Settings, hands: Hands, time_source: clock.Clock = clock.SYSTEM) -> None:
        self._store, self._settings, self._hands, self._clock = store, settings, hands, time_source
        self._blobs = Blobs(settings.blobs)
        self._questions = Questions(
            store, self._blobs, settings.home, lambda: embedding.make(IndexOptions(embedder="auto"))
        )
        self._tidy_at = time_source.now() + _TIDY
        self._pulse = pulse.Pulse(store, "conductor")

    def run(self, stop: threading.Event) -> None:
        """Tick until told to stop."""
        slow_at = 0.0
        while not stop.is_set():
            self.fast()
            if time.monotonic() >= slow_at:
                self.slow()
                self._try("pulse", self._pulse.beat)
                slow_at = time.monotonic() + _SLOW
            stop.wait(_FAST)
        self._try("pulse", self._pulse.end)

    def fast(self) -> None:
        """Reconcile resources and judge rollouts."""
        for number, controller_of in enumerate(self._hands.reconcile):
            self._try(f"controller {number}", controller_of)
        self._try("rollouts", lambda: controller.tick(self._store))

    def slow(self) -> None:
        """Watch for drift, mirror runs, and act on every model and application of the project."""
        self._try("alarms", partial(alarms.look, self._store))
        project = self._project()
        if self._hands.registry is not None:
            self._try("mirror", self._hands.registry.mirror)
        if project is None:
            return
        if self._clock.now() >= self._tidy_at:
            self._tidy_at = self._clock.now() + _TIDY
            self._try("tidy", partial(self._tidy, project))
        for model, spec in project.models.items():
            self._try(f"watch {model}", partial(watch.look, self._store, self._blobs, model, spec.monitor))
            watched = quality.Watched(spec.monitor, project.policy(model), spec.evaluate.slices)
            self._try(f"quality {model}", partial(quality.look, self._store, self._blobs, model, watched))
        for name, application in project.applications.items():
            self._try(f"watch {name}", partial(self._questions.look, name, application.monitor))
        for name in (*project.models, *project.applications):
            hear = partial(signalling.look, self._store, self._settings, project, name, self._clock.now())
            self._try(f"signals {name}", hear)
            self._try(f"act {name}", partial(self._act, name, project))

    def _tidy(self, project: Project) -> None:
        asked = [name for name, one in project.applications.items() if one.monitor.window]
        watched = (*project.models, *asked)
        unused = self._clock.now() - duration.seconds(project.monitoring.snapshots)
        pruning.prune(self._store, self._settings.home, unused)
        retention.tidy(self._store, self._blobs, project.monitoring, watched, self._clock.now())

    def _try(self, what: str, do: Callable[[], object]) -> None:
        """One thing that fails must not keep the others from being done."""
        try:
            do()
        except Exception as error:  # noqa: BLE001
            if self._hands.errors.get(what) != str(error):
                _log.warning("%s: %s", what, error, exc_info=not isinstance(error, errors.OndolError))
            self._hands.errors[what] = str(error)
        else:
            self._hands.errors.pop(what, None)

    def _project(self) -> Project | None:
        try:
            found = projects.load(self._settings.project)
        except errors.NotFoundError:
            return None
        except errors.OndolError as error:
            if self._hands.errors.get("project") != str(error):
                _log.warning("ondol.yaml: %s", error)
            self._hands.errors["project"] = str(error)
            return None
        self._hands.errors.pop("project", None)
        return found

    def _act(self, model: str, project: Project) -> None:
        for action in actions.next_actions(self.state(model, project)):
            self._do(action, project)

    def state(self, model: str, project: Project) -> ModelState:
        """Read what is on record about one model or application."""
        route = routes.get(self._store, model)
        champion = self._champion(model)
        version = ""
        if route is not None:
            version = str(releases.get(self._store, route.stable).manifest.get("version", ""))
        hands, going_on = self._hands.retraining, signals.going_on(self._store, model)
        ended = [one.ended_at for one in signals.retrainings(self._store, model, limit=10)]
        return ModelState(
            model=model,
            stable=route.stable if route else "",
            on_trial=route.candidate if route else "",
            waiting=self._waiting(model, route.stable if route else ""),
            signals=signals.unanswered(self._store, model),
            retraining=going_on,
            walking=bool(hands and hands.running(model)),
            verdict=self._verdict(model, going_on),
            ended_at=max(ended, default=0.0),
            held=standing.held(self._store, model),
            policy=project.retrain,
            now=self._clock.now(),
            can_retrain=hands is not None,
            champion=champion,
            proposed=self._proposed(model, champion, version),
            serving_version=version,
        )

    def _verdict(self, model: str, retraining: Retraining | None) -> str:
        """Return what the gate said of the candidate of a retraining; nothing while it has not."""
        if retraining is None:
            return ""
        gates = rollouts.decisions(self._store, model, "gate", limit=1000)
        return next((one.verdict for one in gates if one.evidence.get("because") == retraining.id), "")

    def _champion(self, model: str) -> str:
        """Return the version the alias points to; nothing while the registry is away, which must not stop a trial."""
        if self._hands.registry is None:
            return ""
        registry, known = self._hands.registry, list[RegisteredModel]()
        self._try("registry", lambda: known.extend(registry.models()))
        found = next((one for one in known if one.name == model), None)
        return found.aliases.get("champion", "") if found else ""

    def _proposed(self, model: str, champion: str, serving: str) -> str:
        """Return the release of the version that the alias names, if it has one that never served nor was on trial."""
        if not champion or champion == serving:
            return ""
        tried = {digest for one in rollouts.of_service(self._store, model) for digest in (one.stable, one.candidate)}
        found = [one for one in releases.of_name(self._store, model) if one.manifest.get("version") == champion]
        return next((one.digest for one in found if one.digest not in tried), "")

    def _waiting(self, model: str, stable: str) -> tuple[str, ...]:
        """Return releases that passed a gate and were neither served, tried nor superseded, oldest first."""
        route = routes.get(self._store, model)
        tried = {one.candidate for one in rollouts.of_service(self._store, model)} | {stable}
        tried |= {route.previous} if route else set()
        tried |= {one.stable for one in rollouts.of_service(self._store, model)}
        tried |= {
            str(one.evidence.get("release")) for one in rollouts.decisions(self._store, model, "supersede", limit=1000)
        }
        passed = [
            str(one.evidence.get("release", ""))
            for one in reversed(rollouts.decisions(self._store, model, "gate", limit=1000))
            if one.verdict == "pass"
        ]
        return tuple(dict.fromkeys(one for one in passed if one and one not in tried))

    def _do(self, action: Action, project: Project) -> None:
        if isinstance(action, actions.StartRollout):
            controller.start(self._store, action.model, action.release, project.policy(action.model))
        elif isinstance(action, actions.Supersede):
            newer = hashing.short(action.by)
            self._decide(
                action.model, "supersede", "superseded", f"a newer release {newer} waits", {"release": action.release}
            )
        elif isinstance(action, actions.PointAlias):
            self._point_alias(action)
        else:
            self._retrain(action, project.retrain)

    def _point_alias(self, action: actions.PointAlias) -> None:
        if self._hands.registry is not None:
            self._hands.registry.set_alias(action.model, "champion", action.version)
            reason = f"champion is version {action.version}, which serves: another one needs a gate and a trial"
            self._decide(action.model, "alias", "moved", reason, {"version": action.version})

    def _retrain(self, action: actions.Retrain | actions.WalkAgain | actions.Settle, policy: RetrainSpec) -> None:
        """Write first, walk then: killed in between, the walk counts as begun and is begun again after the back-off."""
        now, back_off = self._clock.now(), duration.seconds(policy.back_off)
        if isinstance(action, actions.Settle):
            state: RetrainingState = "done" if action.verdict else "given up"
            walks = action.retraining.attempts
            reason = (
                f"{walks} walks came to no gate{self._last_failure(action.retraining)}; the champion stays: "
                f"`ondol loop retrain {action.model}` tries again"
            )
            signals.end(self._store, action.retraining, state, action.verdict, reason, now)
            return
        if isinstance(action, actions.Retrain):
            because = "; ".join(f"{one.kind}: {one.reason}" for one in action.signals)
            answered = tuple(one.id for one in action.signals)
            made = Retraining(
                ids.new_id("retraining"), now, action.model, answered, f"because of {because}",
                attempts=1, next_at=now + back_off,
            )  # fmt: skip
            begun = signals.answer(self._store, made)
        else:
            made = action.retraining
            begun = signals.begin_again(self._store, made, now + back_off * 2**made.attempts)
        if begun and self._hands.retraining is not None:
            self._hands.retraining.start(action.model, made.id)

    def _last_failure(self, retraining: Retraining) -> str:
        """Return why the newest walk of a retraining failed; nothing when none could say, as after a kill."""
        made = rollouts.decisions(self._store, retraining.subject, "retrain", limit=20)
        known = (one for one in made if one.verdict == "failed" and one.evidence.get("retraining") == retraining.id)
        newest = next(known, None)
        return f", the last one because of: {newest.reason}" if newest else ""

    def _decide(self, subject: str, action: str, verdict: str, reason: str, evidence: dict[str, object]) -> None:
        rollouts.decide(
            self._store, Decision(ids.new_id("decision"), time.time(), subject, action, verdict, reason, evidence)
        )
