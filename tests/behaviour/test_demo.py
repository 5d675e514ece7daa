"""The demo through its command line: what the table says is what was decided, and every decision can be made again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.behaviour import demo_tools as tools
from tests.behaviour.demo_tools import Demo

from ondol.app.demo.stage import brief
from ondol.store import rollouts
from ondol.store.connection import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
JUDGED = {"promoted": "promote", "rolled_back": "roll_back"}
Played = tuple[Demo, dict[str, Any]]


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Act one, played to its end once."""
    demo = tools.new(tmp_path_factory.mktemp("demo"))
    try:
        yield demo, demo.json("demo", "--act", "flights")
    finally:
        demo.stop()


def test_the_table_says_what_was_decided(flights: Played) -> None:
    demo, said = flights
    happened = {one["what"]: one for one in said["happened"]}
    assert not any(one["on_record"] for one in said["happened"])
    with demo.store() as store:
        decided = rollouts.decisions(store, "flights", limit=1000)
        ended = {(one.state, one.reason) for one in rollouts.of_service(store, "flights")}
    briefly = {(one.action, one.verdict, brief(one)) for one in decided}
    first = happened.pop("first model")
    assert ("gate", first["verdict"], first["why"]) in briefly
    for name in ("more trees", "units bug", "stale join"):
        one = happened.pop(name)
        verdict, _, missed = one["verdict"].partition(" (")
        if verdict == "undecided":
            continue
        if verdict.startswith("gate: "):
            assert ("gate", verdict.removeprefix("gate: "), one["why"]) in briefly
        else:
            assert (verdict, one["why"]) in ended, (name, one)
        assert bool(missed) == (name != "more trees" and verdict != "rolled_back" and not verdict.startswith("gate"))
    assert happened
    for what, one in happened.items():
        month, _, action = what.partition(": ")
        assert month.startswith("month ")
        assert (action, one["verdict"], one["why"]) in briefly


def test_the_loop_does_what_it_is_for(flights: Played) -> None:
    """No verdict is scripted, and every canary is drawn anew: what is asserted no draw can change.

    Of the two close ones any may stay open or be missed: `docs/benchmarks.md` counts how often over seeds and splits.
    One working split in a thousand is called broken, whatever is tried.
    """
    happened = {one["what"]: one for one in flights[1]["happened"]}
    assert happened["first model"]["verdict"] == "pass"
    assert not happened["more trees"]["verdict"].startswith("gate")
    bug = happened["units bug"]
    assert bug["verdict"] in ("rolled_back", "gate: fail") or bug["why"].startswith("the split is broken"), bug


def test_every_decision_is_made_again_from_its_evidence(flights: Played) -> None:
    demo, said = flights
    tools.settled(demo, "flights")
    with demo.store() as store:
        decided = rollouts.decisions(store, limit=10_000)
    verdicts = {one.id: tools.again(one) for one in decided}
    ended = {one["verdict"] for one in said["happened"]}
    judged = {"gate", "drift", *(action for state, action in JUDGED.items() if state in ended)}
    assert {one.action for one in decided if verdicts[one.id] != "-"} >= judged
    wrong = [(one.action, one.verdict, verdicts[one.id]) for one in decided]
    assert [one for one in wrong if one[2] not in ("-", one[1])] == []
    unjudged = {one.action for one in decided if verdicts[one.id] == "-"}
    assert unjudged <= {"start", "alias", "retrain", "supersede", "abort"}


def _acts(store: Store) -> list[str]:
    """Return the ids of decisions that change something; looks of the monitors go on by themselves."""
    return [one.id for one in rollouts.decisions(store, limit=10_000) if one.action not in ("quality", "drift")]


def test_a_second_run_shows_the_record_and_changes_nothing(flights: Played) -> None:
    demo, said = flights
    tools.settled(demo, "flights")
    with demo.store() as store:
        before = _acts(store)
        trials = rollouts.of_service(store)
    process = demo.start("demo", "--act", "flights", "--json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    shown = json.loads(out)["happened"]
    assert all(one["on_record"] for one in shown)
    assert [(one["what"], one["verdict"], one["why"]) for one in shown] == [
        (one["what"], one["verdict"], one["why"]) for one in said["happened"]
    ]
    assert "6 of 6 steps cached" in err
    with demo.store() as store:
        assert _acts(store) == before
        assert rollouts.of_service(store) == trials


def test_every_command_shows_it(flights: Played) -> None:
    demo, _ = flights
    tools.settled(demo, "flights")
    status = demo.json("status")
    assert status["running"] is True
    assert [one["route"]["service"] for one in status["services"]] == ["flights"]
    serving = status["services"][0]["stable"]
    listed = demo.json("release", "list")
    assert [one["digest"] for one in listed if one["role"] == "serving"] == [serving["digest"]]
    (model,) = demo.json("model", "list")
    assert model["aliases"]["champion"] == serving["manifest"]["version"]
    assert len({one["digest"] for one in model["versions"]}) == len(model["versions"])
    state = next(one for one in demo.json("loop", "status") if one["model"] == "flights")
    assert state["stable"] == serving["digest"]
    assert state["held"] == ""
    demo.json("rollout", "status")
    assert isinstance(demo.json("rollout", "status", "flights"), (list, dict))


def test_it_goes_on_after_a_stop(flights: Played) -> None:
    demo, _ = flights
    before = demo.json("status")["services"][0]["route"]["stable"]
    demo.run("up", "--stop")
    assert demo.json("status")["running"] is False
    demo.run("up", "--detach")
    after = demo.json("status")
    assert after["services"][0]["route"]["stable"] == before
    data = next(one["url"] for one in after["processes"] if one["name"] == "data")
    row = [2, 900, 1000, 20, 60, 10, 0, 1015, 10, 5, 150, 500, 600, 700]
    answer = httpx.post(f"{data}/v1/models/flights:predict", json={"instances": [row]}, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    (chances,) = answer.json()["predictions"]
    assert sum(chances) == pytest.approx(1)
    demo.run("up", "--stop")
