"""The resource API as its protocol says: conflicts, pages, watches, patches, ownership; a client's mistake is a 4xx."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.behaviour import kubernetes_tools
from tests.behaviour.kubernetes_tools import ISVC, manifest

from ondol.api.kubernetes.api import Answer, ResourceApi
from ondol.api.kubernetes.requests import Call
from ondol.records.rollout import Decision
from ondol.store import resource_events, resources, rollouts
from ondol.store.connection import Store

Json = dict[str, Any]
MERGE = {"Content-Type": "application/merge-patch+json"}
JSON_PATCH = {"Content-Type": "application/json-patch+json"}
APPLY = {"Content-Type": "application/apply-patch+yaml"}


@pytest.fixture
def http(store: Store) -> Iterator[httpx.Client]:
    with kubernetes_tools.door(store) as url, kubernetes_tools.client(url) as client:
        yield client


def create(http: httpx.Client, name: str = "delay", **predictor: Any) -> Json:
    answer = http.post(ISVC, json=manifest(name, **predictor))
    assert answer.status_code == 201, answer.text
    found: Json = answer.json()
    return found


def causes(answer: httpx.Response) -> dict[str, str]:
    return {one["field"]: one["reason"] for one in answer.json()["details"]["causes"]}


def test_metadata_is_kept_as_kubernetes_keeps_it(http: httpx.Client, store: Store) -> None:
    first = create(http)
    assert first["metadata"]["generation"] == 1
    path = f"{ISVC}/delay"
    labelled = http.patch(path, json={"metadata": {"labels": {"team": "a"}}}, headers=MERGE).json()
    assert labelled["metadata"]["generation"] == 1
    changed = http.patch(path, json={"spec": {"predictor": {"timeout": 3}}}, headers=MERGE).json()
    assert changed["metadata"]["generation"] == 2
    assert changed["metadata"]["uid"] == first["metadata"]["uid"]
    same = http.patch(path, json={"spec": {"predictor": {"timeout": 3}}}, headers=MERGE).json()
    assert same["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]
    resources.set_status(store, "InferenceService", "default", "delay", {"url": "http://x"})
    seen = http.get(path).json()
    assert (seen["status"], seen["metadata"]["generation"]) == ({"url": "http://x"}, 2)
    assert http.put(path, json={**seen, "status": {"url": "http://mine"}}).json()["status"] == {"url": "http://x"}
    theirs = {**seen, "spec": {}, "status": {"url": "http://theirs"}}
    after = http.put(f"{path}/status", json=theirs).json()
    assert (after["status"], after["spec"]) == ({"url": "http://theirs"}, seen["spec"])


def test_only_a_kind_itself_has_a_short_name(http: httpx.Client) -> None:
    listed = http.get("/apis/serving.kserve.io/v1beta1", headers={"accept": "application/json"}).json()["resources"]
    named = {one["name"]: one.get("shortNames") for one in listed}
    assert named == {"inferenceservices": ["isvc"], "inferenceservices/status": None}


def test_a_stale_writer_loses(http: httpx.Client) -> None:
    first = create(http)
    path = f"{ISVC}/delay"
    first["spec"]["predictor"]["timeout"] = 1
    assert http.put(path, json=first).status_code == 200
    first["spec"]["predictor"]["timeout"] = 2
    stale = http.put(path, json=first)
    assert (stale.status_code, stale.json()["reason"]) == (409, "Conflict")
    nameless = {**first, "metadata": {"name": "delay"}}
    unconditional = http.put(path, json=nameless)
    assert (unconditional.status_code, causes(unconditional)) == (
        422,
        {"metadata.resourceVersion": "FieldValueInvalid"},
    )
    assert http.post(ISVC, json=manifest()).json()["reason"] == "AlreadyExists"
    other = {"preconditions": {"uid": "other"}}
    assert http.request("DELETE", path, json=other).status_code == 409
    assert http.request("DELETE", path, json={"propagationPolicy": "Foreground"}).json()["status"] == "Success"
    assert http.get(path).json()["message"] == 'inferenceservices.serving.kserve.io "delay" not found'


def test_of_many_writers_of_one_version_exactly_one_wins(http: httpx.Client) -> None:
    create(http)
    path = f"{ISVC}/delay"

    def increment(_: int) -> int:
        tries = 0
        while True:
            tries += 1
            seen = http.get(path).json()
            seen["spec"]["predictor"]["timeout"] = seen["spec"]["predictor"].get("timeout", 0) + 1
            if http.put(path, json=seen).status_code == 200:
                return tries

    with ThreadPoolExecutor(8) as threads:
        tries = list(threads.map(increment, range(24)))
    final = http.get(path).json()
    assert (final["spec"]["predictor"]["timeout"], final["metadata"]["generation"]) == (24, 25)
    assert sum(tries) >= 24


def test_what_is_wrong_is_said_with_its_place(http: httpx.Client) -> None:
    unknown = http.post(ISVC, json=manifest(bogus=1))
    assert unknown.status_code == 400
    assert unknown.json()["message"].endswith('strict decoding error: unknown field "spec.predictor.bogus"')
    twice = json.dumps(manifest()).replace('"storageUri"', '"storageUri": "x", "storageUri"')
    doubled = http.post(ISVC, content=twice, headers={"Content-Type": "application/json"})
    assert 'duplicate field "spec.predictor.model.storageUri"' in doubled.json()["message"]
    wrong = http.post(ISVC, json=manifest("Bad_Name", minReplicas="one"))
    assert wrong.status_code == 422
    assert "metadata.name" in causes(wrong)
    typed = http.post(ISVC, json=manifest(minReplicas="one", workerSpec={}))
    assert causes(typed)["spec.predictor.minReplicas"] == "FieldValueTypeInvalid"
    assert causes(typed)["spec.predictor.workerSpec"] == "FieldValueForbidden"
    place = http.post(ISVC.replace("default", "Not_A_Name"), json=manifest())
    assert causes(place) == {"metadata.namespace": "FieldValueInvalid"}
    deep = json.dumps(manifest()).replace('"sklearn"', "[" * 900 + "]" * 900)
    assert http.post(ISVC, content=deep, headers={"Content-Type": "application/json"}).status_code == 400
    assert http.get(ISVC).json()["items"] == []
    warned = http.post(ISVC, json=manifest(bogus=1), params={"fieldValidation": "Warn"})
    assert (warned.status_code, "bogus" in warned.json()["spec"]["predictor"]) == (201, False)
    assert 'unknown field \\"spec.predictor.bogus\\"' in warned.headers["warning"]


def test_a_dry_run_changes_nothing(http: httpx.Client) -> None:
    dry = {"dryRun": "All"}
    assert http.post(ISVC, json=manifest(), params=dry).status_code == 201
    assert http.get(f"{ISVC}/delay").status_code == 404
    create(http)
    change = {"spec": {"predictor": {"timeout": 9}}}
    shown = http.patch(f"{ISVC}/delay", json=change, headers=MERGE, params=dry).json()
    assert shown["spec"]["predictor"]["timeout"] == 9
    assert http.delete(f"{ISVC}/delay", params=dry).status_code == 200
    assert "timeout" not in http.get(f"{ISVC}/delay").json()["spec"]["predictor"]


def test_json_patch_is_all_or_nothing(http: httpx.Client) -> None:
    create(http)
    path = f"{ISVC}/delay"
    test = {"op": "test", "path": "/spec/predictor/model/modelFormat/name", "value": "sklearn"}
    add = {"op": "add", "path": "/spec/predictor/timeout", "value": 4}
    assert http.patch(path, json=[test, add], headers=JSON_PATCH).json()["spec"]["predictor"]["timeout"] == 4
    failing = [{"op": "remove", "path": "/spec/predictor/timeout"}, {**test, "value": "onnx"}]
    assert http.patch(path, json=failing, headers=JSON_PATCH).status_code == 422
    assert http.get(path).json()["spec"]["predictor"]["timeout"] == 4
    strategic = http.patch(path, json={}, headers={"Content-Type": "application/strategic-merge-patch+json"})
    assert (strategic.status_code, strategic.json()["reason"]) == (415, "UnsupportedMediaType")


def apply(http: httpx.Client, who: str, body: Json, **more: str) -> httpx.Response:
    return http.patch(f"{ISVC}/delay", json=body, headers=APPLY, params={"fieldManager": who, **more})


def owners(item: Json) -> dict[str, set[str]]:
    return {
        entry["manager"]: set(entry["fieldsV1"].get("f:spec", {}).get("f:predictor", {}))
        for entry in item["metadata"]["managedFields"]
    }


def test_fields_belong_to_who_applied_them(http: httpx.Client) -> None:
    created = apply(http, "one", manifest(timeout=3))
    assert created.status_code == 201
    assert owners(created.json()) == {"one": {"f:model", "f:timeout"}}
    conflict = apply(http, "two", manifest(timeout=4, containerConcurrency=2))
    assert conflict.status_code == 409
    assert conflict.json()["message"] == 'Apply failed with 1 conflict: conflict with "one": .spec.predictor.timeout'
    forced = apply(http, "two", manifest(timeout=4, containerConcurrency=2), force="true").json()
    assert owners(forced) == {"one": {"f:model"}, "two": {"f:model", "f:timeout", "f:containerConcurrency"}}
    left = apply(http, "two", manifest(timeout=4)).json()
    assert "containerConcurrency" not in left["spec"]["predictor"]
    again = apply(http, "two", manifest(timeout=4)).json()
    assert again["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
    patched = http.patch(f"{ISVC}/delay", json={"spec": {"predictor": {"timeout": 7}}}, headers=MERGE).json()
    assert "f:timeout" not in owners(patched)["two"]
    assert apply(http, "", manifest()).status_code == 422
    text = (
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nspec: {predictor: {timeout: 7}}\nmetadata: {}"
    )
    query = {"fieldManager": "three"}
    shared = http.patch(f"{ISVC}/delay", content=text, headers=APPLY, params=query).json()
    assert owners(shared)["three"] == {"f:timeout"}
    bomb = "kind: x\na: &a [1, 1]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in pairwise("abcdefghijkl"))
    assert http.patch(f"{ISVC}/delay", content=bomb, headers=APPLY, params=query).status_code == 400
    forget = {"metadata": {"managedFields": [{}, 1]}}
    forgotten = http.patch(f"{ISVC}/delay", json=forget, headers=MERGE).json()
    assert "managedFields" not in forgotten["metadata"]


def test_pages_show_one_moment(http: httpx.Client) -> None:
    for number in range(7):
        create(http, f"s{number}")
    first = http.get(ISVC, params={"limit": 3}).json()
    http.delete(f"{ISVC}/s5")
    http.patch(f"{ISVC}/s4", json={"metadata": {"labels": {"new": "yes"}}}, headers=MERGE)
    create(http, "s9")
    second = http.get(ISVC, params={"limit": 10, "continue": first["metadata"]["continue"]}).json()
    names = [one["metadata"]["name"] for one in first["items"] + second["items"]]
    assert names == [f"s{number}" for number in range(7)]
    assert "labels" not in second["items"][1]["metadata"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    selected = http.get(ISVC, params={"labelSelector": "new in (yes,no),!old"}).json()["items"]
    assert [one["metadata"]["name"] for one in selected] == ["s4"]
    assert http.get(ISVC, params={"continue": "nonsense"}).status_code == 400
    assert http.get(ISVC, params={"fieldSelector": "spec.x=1"}).status_code == 400


def lines(http: httpx.Client, count: int, into: list[Json], **query: Any) -> threading.Thread:
    """Collect events of a watch in a thread until there are enough."""
    started = threading.Event()

    def collect() -> None:
        with http.stream("GET", ISVC, params={"watch": "true", "timeoutSeconds": "200", **query}) as answer:
            started.set()
            for line in answer.iter_lines():
                into.append(json.loads(line))
                if len(into) >= count:
                    return

    thread = threading.Thread(target=collect)
    thread.start()
    assert started.wait(200)
    return thread


def test_a_watch_resumes_where_it_ended(http: httpx.Client) -> None:
    version = create(http)["metadata"]["resourceVersion"]
    http.patch(f"{ISVC}/delay", json={"metadata": {"labels": {"team": "a"}}}, headers=MERGE)
    seen: list[Json] = []
    mine: list[Json] = []
    watch = lines(http, 3, seen, resourceVersion=version)
    selected = lines(http, 2, mine, resourceVersion=version, labelSelector="team=a")
    http.patch(f"{ISVC}/delay", json={"metadata": {"labels": {"team": None}}}, headers=MERGE)
    http.delete(f"{ISVC}/delay")
    watch.join(200)
    selected.join(200)
    assert [one["type"] for one in seen] == ["MODIFIED", "MODIFIED", "DELETED"]
    assert [one["type"] for one in mine] == ["ADDED", "DELETED"]
    versions = [int(one["object"]["metadata"]["resourceVersion"]) for one in seen]
    assert versions == sorted(versions)
    rest: list[Json] = []
    lines(http, 2, rest, resourceVersion=str(versions[0])).join(200)
    assert rest == seen[1:]


def test_a_version_that_is_gone_is_gone(http: httpx.Client, store: Store) -> None:
    version = create(http)["metadata"]["resourceVersion"]
    for number in range(resource_events.KEPT + 1):
        resources.set_status(store, "InferenceService", "default", "delay", {"n": number})
    gone: list[Json] = []
    lines(http, 1, gone, resourceVersion=version).join(200)
    assert (gone[0]["type"], gone[0]["object"]["code"], gone[0]["object"]["reason"]) == ("ERROR", 410, "Expired")
    future: list[Json] = []
    lines(http, 1, future, resourceVersion="99999999").join(200)
    assert future[0]["object"]["code"] == 410
    everything: list[Json] = []
    lines(http, 2, everything, sendInitialEvents="true", allowWatchBookmarks="true").join(200)
    assert [one["type"] for one in everything] == ["ADDED", "BOOKMARK"]


def test_finalizers_hold_and_owners_take_along(http: httpx.Client) -> None:
    owner = create(http, "owner")["metadata"]
    reference = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "name": "owner"}
    child = manifest("child")
    child["metadata"]["ownerReferences"] = [{**reference, "uid": owner["uid"]}]
    child["metadata"]["finalizers"] = ["example.com/hold"]
    assert http.post(ISVC, json=child).status_code == 201
    assert http.delete(f"{ISVC}/owner").json()["status"] == "Success"
    held = http.get(f"{ISVC}/child").json()
    assert held["metadata"]["deletionTimestamp"]
    http.patch(f"{ISVC}/child", json={"metadata": {"finalizers": None}}, headers=MERGE)
    assert http.get(f"{ISVC}/child").status_code == 404


def test_namespaces_come_with_what_is_in_them_and_go_with_it(http: httpx.Client) -> None:
    path = ISVC.replace("default", "team-a")
    assert http.post(path, json=manifest()).status_code == 201
    names = [one["metadata"]["name"] for one in http.get("/api/v1/namespaces").json()["items"]]
    assert names == ["default", "kubeflow", "team-a"]
    assert http.delete("/api/v1/namespaces/default").status_code == 403
    assert http.delete("/api/v1/namespaces/team-a").status_code == 200
    assert http.get(f"{path}/delay").status_code == 404
    assert http.get("/api/v1/namespaces/team-a").status_code == 404


def test_secrets_hold_references_only(http: httpx.Client, store: Store) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": {"key": "hunter2"}}
    path = "/api/v1/namespaces/default/secrets"
    refused = http.post(path, json=secret)
    assert (refused.status_code, causes(refused)) == (422, {"stringData[key]": "FieldValueForbidden"})
    assert "hunter2" not in refused.text
    taken = http.post(path, json={**secret, "stringData": {"key": "${AWS_SECRET_ACCESS_KEY}"}}).json()
    assert base64.b64decode(taken["data"]["key"]).decode() == "${AWS_SECRET_ACCESS_KEY}"
    with store.read() as tx:
        assert "hunter2" not in str(tx.rows("SELECT * FROM resources"))


def test_decisions_are_the_events_of_their_service(http: httpx.Client, store: Store) -> None:
    uid = create(http)["metadata"]["uid"]
    for subject, action in (("delay", "promote"), ("delay", "roll_back"), ("other", "gate")):
        rollouts.decide(store, Decision(f"{subject}-{action}", time.time(), subject, action, "pass", "0.7 against 0.6"))
    path = "/api/v1/namespaces/default/events"
    selector = f"involvedObject.uid={uid},involvedObject.kind=InferenceService,type=Warning"
    (event,) = http.get(path, params={"fieldSelector": selector}).json()["items"]
    assert (event["reason"], event["message"]) == ("RollBack", "pass: 0.7 against 0.6")
    assert len(http.get("/api/v1/events").json()["items"]) == 2
    assert http.delete(f"{path}/delay-promote").status_code == 405
    assert http.get(path, params={"watch": "true"}).status_code == 405


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]),
    form=st.sampled_from(
        ["application/json", MERGE["Content-Type"], JSON_PATCH["Content-Type"], APPLY["Content-Type"]]
    ),
    where=st.sampled_from(["metadata", "spec", "kind", "status", ""]),
    value=json_values,
    query=st.dictionaries(
        st.sampled_from(["limit", "continue", "resourceVersion", "labelSelector", "fieldSelector", "dryRun", "force"]),
        st.text(max_size=8),
        max_size=2,
    ),
)
def test_a_clients_mistake_is_never_ours(
    tmp_path_factory: pytest.TempPathFactory, method: str, form: str, where: str, value: Any, query: dict[str, str]
) -> None:
    with Store(tmp_path_factory.mktemp("door") / "ondol.db") as store:
        api = ResourceApi(store)
        api(Call("POST", ISVC, {}, {}, json.dumps(manifest()).encode()))
        body = {**manifest(), where: value} if where else value
        path = ISVC if method == "POST" else f"{ISVC}/delay"
        manager = {"fieldManager": "test", **query}
        found = api(Call(method, path, manager, {"content-type": form}, json.dumps(body).encode()))
        assert isinstance(found, Answer)
        assert found.status < 500
        if found.status >= 400:
            assert json.loads(found.body)["kind"] == "Status"
