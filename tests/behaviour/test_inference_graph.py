"""Inference graphs: each router answers as KServe's does, on a real data plane and a real server beside it."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sklearn.linear_model import LinearRegression
from tests.behaviour import serving_tools
from tests.behaviour.serving_tools import Plane
from tests.conftest import new_settings

from ondol.backends.local import inference_graph
from ondol.store import resources
from ondol.store.connection import Store

Json = dict[str, Any]


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers as its path says: `/STATUS` with what it was sent, `/text` no JSON, `/list` no object, `/slow` never."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, str]]
    over: threading.Event

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        kind = self.path.strip("/")
        if kind == "slow":
            self.over.wait()
        answer = {"text": b"no JSON", "list": b"[1]"}.get(kind, b'{"echo":%s}' % (body or b"null"))
        with contextlib.suppress(ConnectionError):  # who waits for a slow answer may have gone
            self.send_response(int(kind) if kind.isdecimal() else 200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def beside() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that is no service of this machine: its address, and the headers it was sent."""
    seen: list[dict[str, str]] = []
    over = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Mine", (Echo,), {"seen": seen, "over": over}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A data plane with two services: `double` and `half` of one number."""
    folder = tmp_path_factory.mktemp("graphs")
    settings = new_settings(folder)
    patch = pytest.MonkeyPatch()
    patch.setenv("ONDOL_PROPAGATE_HEADERS", "X-Tenant,Test-Header-.*")
    with Store(settings.database) as store, serving_tools.running(settings, store) as plane:
        for name, factor in (("double", 2.0), ("half", 0.5)):
            plane.serve(name, LinearRegression().fit([[0.0], [1.0]], [0.0, factor]), folder / name)
        yield plane
    patch.undo()


def graph(plane: Plane, name: str, nodes: Json, **spec: Any) -> None:
    """Apply a graph and wait until the data plane has it."""
    manifest = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": name},
        "spec": {"nodes": nodes, **spec},
    }
    resources.apply(plane.store, manifest)
    serving_tools.wait(lambda: name in plane.client.get("/v1/graphs").json()["graphs"])


def ask(plane: Plane, name: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"content-type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    return plane.client.post(f"/v1/graphs/{name}", content=content, headers=named)


NOT_ROUTED = {"error": "Failed to process request"}


def test_a_sequence_sends_the_request_or_the_answer_on(plane: Plane, beside: Any) -> None:
    url, _ = beside
    steps = [
        {"serviceName": "double"},
        {"serviceName": "half", "data": "$request"},
        {"serviceUrl": f"{url}/200", "data": "$response", "mapPredictionsToInstances": True},
    ]
    graph(plane, "chain", {"root": {"routerType": "Sequence", "steps": steps}})
    answer = ask(plane, "chain", {"instances": [[3]]})
    assert answer.json() == {"echo": {"instances": [pytest.approx(1.5)]}}
    assert answer.headers["content-type"] == "application/json"


def test_a_condition_that_is_not_met_ends_a_sequence_with_what_there_is(plane: Plane, beside: Any) -> None:
    url, _ = beside
    steps = [
        {"serviceUrl": f"{url}/503"},
        {"serviceName": "double", "data": "$response", "condition": "echo.instances"},
    ]
    graph(plane, "guarded", {"root": {"routerType": "Sequence", "steps": steps}})
    answer = ask(plane, "guarded", {"other": 1})
    assert (answer.status_code, answer.json()) == (200, {"echo": {"other": 1}})  # 200, whatever the step answered
    answer = ask(plane, "guarded", {"instances": [[1]]})
    assert answer.status_code == 400  # what was sent on has no instances


def test_a_switch_takes_the_first_branch_whose_path_exists(plane: Plane, beside: Any) -> None:
    url, _ = beside
    steps = [
        {"serviceName": "double", "condition": "[@this].#(kind==twice)"},
        {"serviceUrl": f"{url}/418", "condition": "instances.#(#>1)"},
        {"serviceName": "half", "condition": "instances"},
    ]
    graph(plane, "switch", {"root": {"routerType": "Switch", "steps": steps}})
    assert ask(plane, "switch", {"kind": "twice", "instances": [[3]]}).json() == {"predictions": [pytest.approx(6)]}
    assert ask(plane, "switch", {"instances": [[3, 4]]}).status_code == 418
    assert ask(plane, "switch", {"instances": [[3]]}).json() == {"predictions": [pytest.approx(1.5)]}
    for body in ({"inputs": 1}, b"no JSON"):
        answer = ask(plane, "switch", body)
        assert answer.status_code == 404
        assert answer.json() == {**NOT_ROUTED, "cause": "None of the routes matched with the switch condition"}


def test_an_ensemble_answers_by_name_or_number(plane: Plane, beside: Any) -> None:
    url, _ = beside
    soft = {"serviceUrl": f"{url}/500", "name": "broken"}
    steps = [{"serviceName": "double", "name": "twice"}, {"serviceName": "half"}, soft]
    graph(plane, "both", {"root": {"routerType": "Ensemble", "steps": steps}})
    body = {"instances": [[3]]}
    answer = ask(plane, "both", body)
    assert answer.status_code == 200
    assert answer.json() == {
        "twice": {"predictions": [pytest.approx(6)]},
        "1": {"predictions": [pytest.approx(1.5)]},
        "broken": {"echo": body},
    }
    steps[2] = {**soft, "dependency": "Hard"}
    graph(plane, "hard", {"root": {"routerType": "Ensemble", "steps": steps}})
    answer = ask(plane, "hard", body)
    assert (answer.status_code, answer.json()) == (500, {"echo": body})
    for kind in ("text", "list"):
        graph(plane, f"odd-{kind}", {"root": {"routerType": "Ensemble", "steps": [{"serviceUrl": f"{url}/{kind}"}]}})
        assert ask(plane, f"odd-{kind}", body).status_code == 500


def test_a_splitter_draws_for_every_request(plane: Plane) -> None:
    steps = [{"serviceName": "double", "weight": 30}, {"serviceName": "half", "weight": 70}]
    graph(plane, "split", {"root": {"routerType": "Splitter", "steps": steps}})
    found = [ask(plane, "split", {"instances": [[1]]}).json()["predictions"][0] for _ in range(400)]
    share = sum(value > 1 for value in found) / len(found)
    assert 0.15 < share < 0.45  # six standard deviations around 0.3


def test_hard_ends_a_sequence_and_soft_does_not(plane: Plane, beside: Any) -> None:
    url, _ = beside
    for dependency, status in (("Hard", 409), ("Soft", 200)):
        steps = [
            {"serviceUrl": f"{url}/409", "dependency": dependency},
            {"serviceName": "double", "data": "$request"},
        ]
        name = f"sequence-{dependency.lower()}"
        graph(plane, name, {"root": {"routerType": "Sequence", "steps": steps}})
        assert ask(plane, name, {"instances": [[1]]}).status_code == status


def test_nodes_lead_to_nodes_and_what_they_cannot_route_is_a_500(plane: Plane) -> None:
    nodes = {
        "root": {"routerType": "Ensemble", "steps": [{"nodeName": "pick", "name": "picked"}]},
        "pick": {"routerType": "Switch", "steps": [{"serviceName": "double", "condition": "instances"}]},
    }
    graph(plane, "nested", nodes)
    assert ask(plane, "nested", {"instances": [[2]]}).json() == {"picked": {"predictions": [pytest.approx(4)]}}
    answer = ask(plane, "nested", {})
    assert answer.status_code == 500
    assert answer.json()["cause"] == "None of the routes matched with the switch condition"


def test_only_chosen_headers_go_on_and_the_trace(plane: Plane, beside: Any) -> None:
    url, seen = beside
    graph(plane, "headers", {"root": {"routerType": "Sequence", "steps": [{"serviceUrl": url}]}})
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    ask(plane, "headers", {}, x_tenant="a", test_header_1="b", x_other="c", authorization="d", traceparent=trace)
    (sent,) = (one for one in seen if one.get("traceparent") == trace)
    assert (sent["x-tenant"], sent["test-header-1"], sent["traceparent"]) == ("a", "b", trace)
    assert not {"x-other", "authorization"} & sent.keys()
    assert sent["content-type"] == "application/json"


def test_a_step_that_is_too_slow_or_not_there_fails_the_request(plane: Plane, beside: Any) -> None:
    url, _ = beside
    slow = {"root": {"routerType": "Sequence", "steps": [{"serviceUrl": f"{url}/slow"}]}}
    graph(plane, "slow", slow, routerTimeouts={"serviceClient": 1})
    assert ask(plane, "slow", {}).status_code == 500
    graph(plane, "late", slow, timeout=1)
    assert ask(plane, "late", {}).status_code == 504
    gone = {"root": {"routerType": "Sequence", "steps": [{"serviceUrl": "http://127.0.0.1:9/", "dependency": "Soft"}]}}
    graph(plane, "gone", gone)
    answer = ask(plane, "gone", {})
    assert answer.status_code == 500
    assert "127.0.0.1:9" in answer.json()["cause"]


def test_a_graph_is_found_by_its_host_and_a_cluster_address_leads_to_the_service(plane: Plane) -> None:
    steps = [{"serviceUrl": "http://double.default.svc.cluster.local/v1/models/double:predict"}]
    graph(plane, "hosted", {"root": {"routerType": "Sequence", "steps": steps}})
    body = {"instances": [[2]]}
    found = plane.client.post("/", json=body, headers={"host": "hosted.default.example.com"})
    assert found.json() == {"predictions": [pytest.approx(4)]}
    assert plane.client.post("/", json=body, headers={"host": "hosted.other.example.com"}).status_code >= 400


def test_a_graph_waits_for_its_services(plane: Plane, tmp_path: Path) -> None:
    graph(plane, "early", {"root": {"routerType": "Sequence", "steps": [{"serviceName": "third"}]}})

    def status() -> Json:
        inference_graph.reconcile(plane.store, plane.settings)
        return resources.get(plane.store, "InferenceGraph", "default", "early").status

    answer = ask(plane, "early", {"instances": [[3]]})
    assert (answer.status_code, answer.json()["code"]) == (503, "STA-300")
    assert status()["conditions"][0]["reason"] == "ServiceNotFound"
    assert "url" not in status()
    plane.serve("third", LinearRegression().fit([[0.0], [1.0]], [0.0, 1 / 3]), tmp_path / "third")
    assert ask(plane, "early", {"instances": [[3]]}).json() == {"predictions": [pytest.approx(1)]}
    found = status()
    assert found["conditions"][0]["status"] == "True"
    assert plane.client.post(found["url"], json={"instances": [[3]]}).status_code == 200
    resources.apply(
        plane.store,
        {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "InferenceGraph",
            "metadata": {"name": "early", "annotations": {"serving.kserve.io/stop": "true"}},
            "spec": {"nodes": {"root": {"routerType": "Sequence", "steps": [{"serviceName": "third"}]}}},
        },
    )
    serving_tools.wait(lambda: "early" not in plane.client.get("/v1/graphs").json()["graphs"])
    assert status()["conditions"][0]["reason"] == "Stopped"
    assert ask(plane, "early", {}).status_code == 404
