"""A state machine: whatever is written in whatever order, stale writers lose and watches replay to what is there."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.behaviour.kubernetes_tools import ISVC, manifest

from ondol.api.kubernetes.api import Answer, ResourceApi
from ondol.api.kubernetes.requests import Call
from ondol.api.kubernetes.watching import Watch
from ondol.store.connection import Store

Json = dict[str, Any]
NAMES = st.sampled_from(["a", "b", "c"])
TEAMS = st.sampled_from(["red", "blue"])


class Machine(RuleBasedStateMachine):
    """`model` is what should be there: name -> (resourceVersion, timeout, team)."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._store = Store(Path(self._folder.name) / "ondol.db")
        self._api = ResourceApi(self._store)
        self.model: dict[str, tuple[int, int, str]] = {}
        self.uids: set[str] = set()
        self.moments: list[tuple[int, dict[str, Json]]] = []
        self.remember()

    def call(self, method: str, path: str, body: Json | None = None, form: str = "", **query: str) -> Answer:
        found = self._api(Call(method, path, query, {"content-type": form}, json.dumps(body).encode() if body else b""))
        assert isinstance(found, Answer)
        return found

    def listed(self, **query: str) -> Json:
        found: Json = json.loads(self.call("GET", ISVC, None, "", **query).body)
        return found

    def remember(self) -> None:
        """Keep this moment, for watches to begin from."""
        whole = self.listed()
        self.moments.append((int(whole["metadata"]["resourceVersion"]), {_name(one): one for one in whole["items"]}))

    def note(self, found: Answer) -> None:
        item = json.loads(found.body)
        team = item["metadata"].get("labels", {}).get("team", "")
        timeout = item["spec"]["predictor"].get("timeout", 0)
        self.model[_name(item)] = (int(item["metadata"]["resourceVersion"]), timeout, team)

    @rule(name=NAMES, team=TEAMS)
    def create(self, name: str, team: str) -> None:
        wanted = manifest(name)
        wanted["metadata"]["labels"] = {"team": team}
        found = self.call("POST", ISVC, wanted)
        assert found.status == (409 if name in self.model else 201)
        if found.status == 201:
            uid = json.loads(found.body)["metadata"]["uid"]
            assert uid not in self.uids
            self.uids.add(uid)
            self.note(found)

    @rule(name=NAMES, timeout=st.integers(1, 5), age=st.integers(0, 3))
    def replace(self, name: str, timeout: int, age: int) -> None:
        wanted = manifest(name, timeout=timeout)
        version = self.model[name][0] - age if name in self.model else 1
        wanted["metadata"]["resourceVersion"] = str(version)
        found = self.call("PUT", f"{ISVC}/{name}", wanted)
        assert found.status == (404 if name not in self.model else 409 if age else 200)
        if found.status == 200:
            self.note(found)

    @rule(name=NAMES, team=TEAMS)
    def relabel(self, name: str, team: str) -> None:
        patch = {"metadata": {"labels": {"team": team}}}
        found = self.call("PATCH", f"{ISVC}/{name}", patch, "application/merge-patch+json")
        assert found.status == (200 if name in self.model else 404)
        if found.status == 200:
            changed = self.model[name][2] != team
            before = self.model[name][0]
            self.note(found)
            assert (self.model[name][0] > before) == changed

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        found = self.call("DELETE", f"{ISVC}/{name}")
        assert found.status == (200 if name in self.model else 404)
        self.model.pop(name, None)

    @rule()
    def moment(self) -> None:
        self.remember()

    @rule(which=st.integers(0, 10), team=st.sampled_from(["", "red"]))
    def watch(self, which: int, team: str) -> None:
        version, seen = self.moments[which % len(self.moments)]
        query = {"watch": "true", "resourceVersion": str(version), "labelSelector": f"team={team}" if team else ""}
        watch = self._api(Call("GET", ISVC, query))
        assert isinstance(watch, Watch)
        view = {name: one for name, one in seen.items() if not team or _team(one) == team}
        last = version
        for line in [*watch.begin(), *watch.poll()]:
            event = json.loads(line)
            item = event["object"]
            assert int(item["metadata"]["resourceVersion"]) > last
            last = int(item["metadata"]["resourceVersion"])
            assert (event["type"] == "ADDED") == (_name(item) not in view)
            if event["type"] == "DELETED":
                del view[_name(item)]
            else:
                view[_name(item)] = item
        now = {_name(one): one for one in self.listed(labelSelector=query["labelSelector"])["items"]}
        assert view == now

    @rule(which=st.integers(0, 10))
    def read_the_past(self, which: int) -> None:
        version, seen = self.moments[which % len(self.moments)]
        past = self.listed(resourceVersion=str(version), resourceVersionMatch="Exact")
        assert {_name(one): one for one in past["items"]} == seen

    @invariant()
    def what_is_there_is_what_was_written(self) -> None:
        items = {_name(one): one for one in self.listed()["items"]}
        assert {name: int(one["metadata"]["resourceVersion"]) for name, one in items.items()} == {
            name: version for name, (version, _, _) in self.model.items()
        }

    def teardown(self) -> None:
        self._store.close()
        self._folder.cleanup()


def _name(item: Json) -> str:
    return str(item["metadata"]["name"])


def _team(item: Json) -> str:
    return str(item["metadata"].get("labels", {}).get("team", ""))


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
