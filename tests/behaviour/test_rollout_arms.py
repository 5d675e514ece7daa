"""Arms on a real data plane: several variants, units found where they are declared, copies that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tests.behaviour import serving_tools
from tests.behaviour.serving_tools import Plane
from tests.conftest import new_settings

from ondol.api.kserve import exchange, mirror
from ondol.base import errors
from ondol.records.rollout import Observation, Route, Variant
from ondol.rollout import split, units
from ondol.store import observations, routes
from ondol.store.connection import Store
from ondol.testing import mutants
from ondol.testing.mutants import Mutation

X = serving_tools.matrix(300, 3)
Y = (X[:, 0] > 0).astype(int)
RIGHT, WRONG = LogisticRegression().fit(X, Y), LogisticRegression().fit(X, 1 - Y)
THIRD = LogisticRegression().fit(X, (X[:, 1] > 0).astype(int))
MODELS = {"stable": RIGHT, "b": WRONG, "c": THIRD}
THREE = Route("m", "model", "a", "b", 60.0, "salt", others=(Variant("c", "c", 0.5),))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("arms")
    with Store(new_settings(folder).database) as store, serving_tools.running(new_settings(folder), store) as plane:
        plane.serve("m", RIGHT, folder / "right")
        yield plane


def move(plane: Plane, service: str = "m", **changes: Any) -> Route:
    """Change a route, and wait until it is served."""
    route = routes.get(plane.store, service)
    assert route is not None
    moved = routes.put(plane.store, replace(route, **changes))
    row = X[:1].tolist() if service == "m" else [["AA", 1.0]]
    serving_tools.wait(lambda: plane.predict(service, row).headers["x-ondol-route"] == str(moved.generation))
    return moved


def seen(plane: Plane, service: str, shadow: bool, count: int) -> list[Observation]:
    """Wait for so many logged requests (or copies) and return them."""

    def found() -> list[Observation]:
        return [one for one in observations.of_service(plane.store, service) if one.shadow == shadow]

    serving_tools.wait(lambda: len(found()) >= count)
    return found()


@given(st.text(max_size=30), st.floats(0, 100), st.floats(0, 100))
def test_a_unit_stays_in_its_variant_as_the_weight_grows(unit: str, one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    arm = split.assign(replace(THREE, weight=smaller), unit)
    assert arm == "stable" or split.assign(replace(THREE, weight=larger), unit) == arm


def test_variants_get_their_shares() -> None:
    arms = [split.assign(THREE, f"u{index}") for index in range(30_000)]
    for arm, share in {"stable": 0.4, "candidate": 0.3, "c": 0.3}.items():
        assert abs(arms.count(arm) / len(arms) - share) < 0.01
    alone = THREE.with_variants(THREE.variants[1:], 30.0)
    assert (alone.candidate, alone.candidate_name, alone.others) == ("c", "c", ())


def test_three_arms_answer_and_say_so(plane: Plane, tmp_path: Path) -> None:
    second = plane.release("m", WRONG, tmp_path / "wrong")
    third = plane.release("m", THIRD, tmp_path / "third")
    route = routes.get(plane.store, "m")
    assert route is not None
    variants = (Variant("b", second.digest, 0.5), Variant("c", third.digest, 0.5))
    wanted = route.with_variants(variants, 60.0)
    routes.put(plane.store, replace(wanted, salt="three", unit="body:user"))
    for release in (second, third):
        plane.wait_for("m", release.digest)
    wanted = replace(wanted, salt="three")
    mine = next(str(index) for index in range(1000) if split.assign(wanted, str(index)) == "c")
    serving_tools.wait(lambda: plane.predict("m", X[:1].tolist(), x_ondol_unit=mine).headers["x-ondol-arm"] == "c")
    for user in map(str, range(60)):
        body = {"instances": X[:1].tolist(), "user": user}
        answer = plane.client.post("/v1/models/m:predict", json=body)
        arm = answer.headers["x-ondol-arm"]
        assert arm == split.assign(wanted, user)
        assert answer.json()["predictions"] == MODELS[arm].predict(X[:1]).tolist()
    with_header = plane.predict("m", X[:1].tolist(), x_ondol_unit="7").headers["x-ondol-arm"]
    assert with_header == split.assign(wanted, "7")
    ids = ",".join(f"row-{index}" for index in range(30))
    mixed = plane.predict("m", X[:30].tolist(), x_request_ids=ids)
    assert mixed.headers["x-ondol-arm"] == "stable,b,c"
    arms = [split.assign(wanted, f"row-{index}") for index in range(30)]
    expected = [MODELS[arm].predict(X[index : index + 1])[0] for index, arm in enumerate(arms)]
    assert mixed.json()["predictions"] == expected
    serving_tools.wait(lambda: {one.arm for one in observations.of_service(plane.store, "m")} >= {"stable", "b", "c"})
    move(plane, **{name: getattr(route, name) for name in ("candidate", "candidate_name", "others", "weight", "unit")})


def test_rows_of_one_request_have_the_time_of_the_arm_that_answered_them(plane: Plane, tmp_path: Path) -> None:
    plane.serve("timed", RIGHT, tmp_path / "right")
    slow = plane.release("timed", mutants.make(RIGHT, Mutation("slow", amount=0.2)), tmp_path / "slow")
    route = routes.get(plane.store, "timed")
    assert route is not None
    routes.put(plane.store, replace(route, candidate=slow.digest, weight=50.0, salt="slow", rollout="slow"))
    plane.wait_for("timed", slow.digest)
    names = [f"slow-{index}" for index in range(20)]

    def is_split() -> bool:
        mixed = plane.predict("timed", X[:20].tolist(), x_request_ids=",".join(names))
        return mixed.headers["x-ondol-arm"] == "stable,candidate"

    def times_by_arm() -> dict[str, float]:
        logged = [one for one in observations.by_ids(plane.store, names) if one.weight == 50]
        return {one.arm: one.latency_ms for one in logged}

    serving_tools.wait(is_split)
    serving_tools.wait(lambda: len(times_by_arm()) == 2)
    times = times_by_arm()
    assert times["candidate"] >= 200
    assert times["stable"] != times["candidate"]
    rows = {one.id: one.row for one in observations.by_ids(plane.store, names)}
    assert rows == {name: row for row, name in enumerate(names)}
    for weight, apart in ((10.0, True), (50.0, True), (90.0, False), (0.0, False)):
        assert exchange.timed_apart(replace(route, candidate="b", weight=weight)) == apart
    assert exchange.timed_apart(replace(THREE, weight=66.67))  # thirds


def test_a_copy_is_compared_and_changes_nothing(plane: Plane, tmp_path: Path) -> None:
    other = plane.release("m", WRONG, tmp_path / "wrong")
    routed = routes.get(plane.store, "m")
    assert routed is not None
    move(plane, candidate=other.digest, mirror=100.0, weight=0.0, salt="dark")
    plane.wait_for("m", other.digest)
    for index in range(20):
        answer = plane.predict("m", X[:4].tolist(), x_request_id=f"dark-{index}")
        assert answer.json()["predictions"] == RIGHT.predict(X[:4]).tolist()
        assert answer.headers["x-ondol-arm"] == "stable"
    serving_tools.wait(lambda: any(one.id == "dark-19" for one in seen(plane, "m", True, 10)))
    last = next(one for one in seen(plane, "m", True, 10) if one.id == "dark-19")
    assert (last.arm, last.release, last.status) == ("candidate", other.digest, 200)
    assert (last.signals["disagreement"], last.signals["primary_status"]) == (1.0, 200.0)
    assert last.signals["latency_ratio"] > 0
    move(plane, candidate="", mirror=0.0)


def test_a_slow_or_failing_candidate_never_touches_the_primary(plane: Plane, tmp_path: Path) -> None:
    """The copies wait in a short queue of their own: they are dropped and counted, and every answer is stable's."""
    frame = pd.DataFrame({"carrier": np.where(X[:, 0] > 0, "KE", "AA"), "distance": X[:, 1]})

    def model(unknown: str, last: Any) -> Any:
        encode = ColumnTransformer(
            [("one", OneHotEncoder(handle_unknown=unknown), ["carrier"])], remainder="passthrough"
        )
        return make_pipeline(encode, last).fit(pd.concat([frame] * 300), np.tile(Y, 300))

    plane.serve("s", model("ignore", LogisticRegression()), tmp_path / "stable")
    slow = plane.release("s", model("error", KNeighborsClassifier(algorithm="brute")), tmp_path / "slow")
    route = routes.get(plane.store, "s")
    assert route is not None
    routes.put(plane.store, replace(route, candidate=slow.digest, mirror=100.0, salt="dark"))
    plane.wait_for("s", slow.digest)
    rows = [["KE", 1.0]] * 100

    def ask(index: int) -> tuple[int, str]:
        answer = plane.predict("s", rows if index else [["XX", 1.0]], x_request_id=f"s-{index}")
        return answer.status_code, answer.headers["x-ondol-arm"]

    def is_behind() -> bool:
        assert set(pool.map(ask, range(1, 17))) == {(200, "stable")}
        return dropped() > 0

    def dropped() -> float:
        metrics = plane.client.get("/metrics").text
        line = next(one for one in metrics.splitlines() if one.startswith("ondol_mirror_dropped_total"))
        return float(line.split()[-1])

    assert ask(0) == (200, "stable")
    with ThreadPoolExecutor(8) as pool:
        serving_tools.wait(is_behind)
    copies = seen(plane, "s", True, 1)
    failed = next(one for one in copies if one.id == "s-0")
    assert (failed.status, failed.signals["primary_status"]) == (500, 200.0)


def test_numbers_are_posted_once_and_refused_by_field(plane: Plane) -> None:
    def post(*given: Any) -> Any:
        return plane.client.post("/ondol/v1/metrics", json={"metrics": list(given)})

    revenue = {"request": "order-1", "name": "revenue", "value": 12.5}
    unit = {"unit": "customer-7", "service": "m", "name": "renewed", "value": 1}
    assert post(revenue, unit).json() == {"received": 2, "new": 1, "not_on_trial": 1}
    assert post(revenue).json()["new"] == 0
    routed = routes.get(plane.store, "m")
    assert routed is not None
    routed = routes.put(plane.store, replace(routed, rollout="roll-1"))
    assert post(unit).json() == {"received": 1, "new": 1, "not_on_trial": 0}
    routes.put(plane.store, replace(routed, rollout=""))
    for wrong, field in (
        ({**revenue, "value": True}, "metrics[0].value"),
        ({**revenue, "unit": "u"}, "metrics[0]"),
        ({"unit": "u", "name": "n", "value": 1}, "metrics[0].service"),
        ({**revenue, "at": 1}, "metrics[0].at"),
        (7, "metrics[0]"),
    ):
        answer = post(wrong)
        assert (answer.status_code, answer.json()["field"]) == (400, field)


@pytest.mark.parametrize(
    ("declared", "found"),
    [("header:X-User", "h"), ("cookie:session", "c 1"), ("body:user.id", "7"), ("body:nothing", ""), ("", "")],
)
def test_units_are_found_where_they_are_declared(declared: str, found: str) -> None:
    headers = {"x-user": "h", "cookie": 'a=b; session="c 1"'}
    assert units.find(units.check(declared), lambda name: headers.get(name, ""), b'{"user": {"id": 7}}') == found


def test_a_unit_that_cannot_be_found_is_refused() -> None:
    with pytest.raises(errors.InputError, match="'query:user'"):
        units.check("query:user")


def test_answers_are_compared_by_label_and_probability() -> None:
    assert mirror.compare([1, 0], [1, 1]) == {"disagreement": 0.5}
    assert mirror.compare([[0.25, 0.75]], [[0.5, 0.5]]) == {"disagreement": 1.0, "probability_difference": 0.25}
    assert mirror.compare([0.75], [0.5]) == {"disagreement": 0.0, "probability_difference": 0.25}
    assert mirror.compare([1], [1, 2]) == {"disagreement": 1.0}
