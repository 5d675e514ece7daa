"""Brings a service's route to what its manifest asks for, one step at a time: KServe's two canary dialects, or a trial.

`canaryTrafficPercent` gives the newest model a share; `spec.canary[]` names variants, each with its share (0: it is
loaded and reached by its version only). The annotation `ondol.io/rollout` has a new model tried and judged instead.

Must not load a model nor judge one.
"""

from __future__ import annotations

import time
from dataclasses import replace

from ondol.backends.local.progress import Progress
from ondol.base import ids
from ondol.formats import project
from ondol.formats.inference_service import InferenceService
from ondol.formats.kserve.service import TRIAL
from ondol.records.rollout import CANDIDATE, Route, Variant
from ondol.rollout import controller, units
from ondol.store import loads, rollouts, routes
from ondol.store.connection import Store

UNIT_ANNOTATION = "ondol.io/unit"
"""Where requests name their unit: `header:NAME`, `cookie:NAME` or `body:FIELD`."""

_STAGED = "_next"  # no name that a variant can have


def move(store: Store, service: InferenceService, progress: Progress) -> None:
    """Do the next step; `progress` says when there is none left.

    :raises InputError: when the annotations cannot be followed.
    """
    unit = units.check(service.annotations.get(UNIT_ANNOTATION, ""))
    route = routes.get(store, service.name)
    if route is None:
        route = Route(service.name, "model", progress.release, salt=ids.new_id("canary"), unit=unit)
        _settle(store, route, service, progress)
    elif route.rollout:
        progress.message = f"waits for rollout {route.rollout} to end"
    elif progress.rollout:
        ended = rollouts.get(store, progress.rollout)
        _done(progress, f"rollout {ended.id} {ended.state}: {ended.reason}")
    elif route.stable == progress.release:
        _settle(store, replace(route, unit=unit), service, progress)
    elif TRIAL in service.annotations:
        _try(store, replace(route, unit=unit), service, progress)
    else:
        _replace(store, replace(route, unit=unit), service, progress)


def _settle(store: Store, route: Route, service: InferenceService, progress: Progress) -> None:
    """Put the manifest's named canaries, or none, beside the model that serves."""
    variants = tuple(
        Variant(one.predictor.name, progress.variants[one.predictor.name], one.percent) for one in service.canary
    )
    salt = route.salt or ids.new_id("canary")
    wanted = replace(route.with_variants(variants, float(sum(one.percent for one in service.canary))), salt=salt)
    if wanted != routes.get(store, route.service):
        routes.put(store, wanted)
    _done(progress)


def _try(store: Store, route: Route, service: InferenceService, progress: Progress) -> None:
    """Start the trial that the annotation asks for; the judge decides from here on."""
    where = f"metadata.annotations.{TRIAL}"
    policy = project.rollout_policy(service.annotations[TRIAL], where)
    if route != routes.get(store, route.service):
        routes.put(store, route)
    started = controller.start(store, service.name, progress.release, policy)
    progress.rollout, progress.message = started.id, f"waits for rollout {started.id} to end"


def _replace(store: Store, route: Route, service: InferenceService, progress: Progress) -> None:
    """Bring the new model in: by its share, or for everybody as soon as it is loaded.

    One that does not load leaves the route alone.
    """
    new, percent = progress.release, service.predictor.canary_percent
    if percent is not None and percent < 100:
        salt = route.salt if route.candidate == new else ids.new_id("canary")
        share = route.with_variants((Variant(CANDIDATE, new, 1.0),), float(percent))
        routes.put(store, replace(share, salt=salt))
        _done(progress)
        return
    if new not in [one.release for one in route.variants]:
        progress.staged_at = time.time()
        salt = route.salt or ids.new_id("canary")
        staged = (Variant(_STAGED, new, 0.0), *route.variants)  # it is loaded beside the others, without a share
        routes.put(store, replace(route.with_variants(staged, route.weight), salt=salt))
        return
    load = next((one for one in loads.every(store, route.service) if one.release == new), None)
    if load is None or load.at < progress.staged_at:
        return
    if load.state == "Loaded":
        _settle(store, replace(route, stable=new, previous=route.stable), service, progress)
    elif load.state == "FailedToLoad":
        kept = tuple(one for one in route.variants if one.name != _STAGED)
        routes.put(store, route.with_variants(kept, route.weight))
        progress.state, progress.reason, progress.message = "failed", "ModelLoadFailed", load.message


def _done(progress: Progress, message: str = "") -> None:
    progress.state, progress.reason, progress.message = "done", "", message
