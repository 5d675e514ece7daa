"""A rollout's whole life on every database the store accepts."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from ondol.records.release import ModelManifest
from ondol.records.rollout import JudgePolicy, Observation, Route
from ondol.rollout import controller, panel, split, watching
from ondol.store import loads, observations, releases, rollouts, routes
from ondol.store.connection import Store

POLICY = JudgePolicy(metrics=("error_rate", "quality"), steps=(10.0, 50.0, 100.0), margin=0.1, min_requests=50)


def unit_of(route: Route, index: int) -> str:
    """Return a unit whose arm is the same in every run: chance must not draw a share that leans to harm."""
    every = round(100 / route.weight)
    wanted = "candidate" if index % every == 0 else "stable"
    return next(unit for number in count() if split.assign(route, unit := f"u{index}-{number}") == wanted)


def traffic(store: Store, first: int, n: int) -> list[str]:
    route = routes.get(store, "s")
    assert route is not None
    batch = []
    for index in range(first, first + n):
        unit = unit_of(route, index)
        batch.append(
            Observation(f"r{index}", time.time(), "s", "d", split.assign(route, unit), unit, 200, 1.0, route.rollout,
                        prediction="[0]", weight=route.weight)
        )  # fmt: skip
    observations.append(store, batch)
    return [one.id for one in batch]


@pytest.mark.slow
def test_from_start_to_promotion(store: Store) -> None:
    stable, candidate = (releases.put(store, "s", ModelManifest(name, f"file:///{name}")).digest for name in "ab")
    routes.put(store, Route("s", "model", stable))
    rollout = controller.start(store, "s", candidate, POLICY)
    loads.put(store, "s", candidate, "Loaded")
    observations.label(store, dict.fromkeys([f"r{index}" for index in range(300)], "0"))  # before their requests
    names = traffic(store, 0, 900)
    assert [one.action for one in controller.tick(store)] == ["advance"]
    observations.label(store, dict.fromkeys(names, "0"))
    observations.signal(store, {name: {"quality": 1.0} for name in names[:5]})
    traffic(store, 900, 900)
    warm = watching.verdict(store, rollouts.get(store, rollout.id))
    watching.forget(store, rollout.id)
    assert watching.verdict(store, rollouts.get(store, rollout.id)) == warm
    # several processes tick at once: one of them decides
    with ThreadPoolExecutor(4) as pool:
        made = [one for found in pool.map(lambda _: controller.tick(store), range(8)) for one in found]
    assert [one.action for one in made] == ["promote"]
    again = panel.replay(made[0].evidence)
    assert (again.action, again.reason) == ("promote", made[0].reason)
    route = routes.get(store, "s")
    assert route is not None
    assert (route.stable, route.previous) == (candidate, stable)
    assert controller.rollback(store, "s").evidence["to"] == stable
