"""The inference protocols' paths: exact dispatch, no framework, no work but finding who answers.

`handle` is called with a whole request and replies now or later through a callback; it never raises and never awaits,
so that it can sit behind ASGI as well as directly on a connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from ondol.api.kserve import (
    answers,
    bodies,
    forward,
    invocations,
    labels,
    posted_metrics,
    repository,
    v2,
    v2_documents,
    v2_rest,
)
from ondol.api.kserve.answers import Headers, Reply
from ondol.api.kserve.around import Around
from ondol.api.kserve.caller import Callers, RequestHeaders
from ondol.api.kserve.exchange import Context, Exchange, Write
from ondol.base import errors
from ondol.serving import inputs, payloads_v1
from ondol.serving.models import Models, Serving
from ondol.store.connection import Store

log = logging.getLogger("ondol.serving")

Json = dict[str, Any]
_V1, _V2 = "/v1/models/", "/v2/models/"
_REPOSITORY = "/v2/repository/"


class KServeDoor:
    """V1 and V2 over the models in memory."""

    def __init__(self, models: Models, context: Context, store: Store) -> None:
        self.models = models
        self.context = context
        self.callers = Callers()
        self._store = store
        self.forwarding = forward.Forwarding(context)
        self.around = Around(models, self._v1)
        self.draining = False

    def handle(
        self, method: str, path: str, headers: RequestHeaders, body: bytes, reply: Reply, inside: bool = False
    ) -> bool:
        """Answer a request through `reply`; return False when the path is not of these protocols.

        :param inside: whether a transformer or explainer asks its predictor: not to go to the transformer again.
        """
        started = time.perf_counter()
        service = ""
        if inside:
            headers = self.forwarding.recalled(headers)
        try:
            if b"content-encoding" in headers:
                body = bodies.inflated(headers, body)
            if path.startswith(_V1) and path.endswith(":predict"):
                service = path[len(_V1) : -len(":predict")]
                _only("POST", method)
                reply = self.around.tapped(service, "v1", headers, body, reply, inside)
                if not self.around.held(service, path, headers, body, reply, inside):
                    self._v1(service, path, headers, body, reply, started, inside)
            elif path.startswith(_V2) and path.endswith("/infer"):
                service, version, _ = v2_documents.split(path[len(_V2) :])
                _only("POST", method)
                reply = self.around.tapped(service, "v2", headers, body, reply, inside)
                if not self._forward(service, "v2", method, path, headers, body, reply, started, inside):
                    self._infer_v2(service, version, headers, body, reply, started)
            else:
                return self._other(method, path, headers, body, reply, inside)
        except errors.OndolError as error:
            status = answers.refuse(reply, error, _known_id(headers))
            self._refused(service, path[1:3], status, started)
        except Exception as error:  # a bug of ours: the connection and the process must live on
            log.exception("%s %s failed", method, path)
            answers.refuse(reply, errors.OndolError(f"internal error: {type(error).__name__}"))
            self.context.metrics.record("", "", path[1:3], 500, time.perf_counter() - started)
        return True

    def _refused(self, service: str, protocol: str, status: int, started: float) -> None:
        known = service if service in self.models.serving else ""
        self.context.metrics.record(known, "", protocol, status, time.perf_counter() - started)

    def find(self, service: str) -> Serving:
        """Return what serves a model.

        :raises OndolError: NOF-020 when there is no such model, STA-021 when it is not ready.
        """
        serving = self.models.serving.get(service)
        if serving is not None:
            return serving
        state = self.models.states().get(service)
        if state is None:
            raise errors.NotFoundError(
                f"no model {service!r}", where="path", way_out="GET /v1/models lists them.", code="NOF-020"
            )
        raise errors.StateError(f"model {service!r} is not ready: {state}", way_out="`ondol status`", code="STA-021")

    def _forward(
        self, service: str, protocol: str, method: str, path: str, headers: RequestHeaders, body: bytes, reply: Reply,
        started: float, inside: bool,
    ) -> bool:  # fmt: skip
        """Send the request to a process when one has to answer it; return False when the model is in memory."""
        serving = self.models.serving.get(service)
        if serving is None or not (serving.forwards or protocol == "explain"):
            return False
        component = forward.component_for(serving, protocol, inside)
        if not component:
            return False
        caller = self.callers.read(headers, 1, serving.route, body)
        request = forward.Request(
            serving, component, protocol, method, path, headers, body, reply, started, inside, caller
        )
        self.forwarding.start(request)
        return True

    def _v1(
        self, service: str, path: str, headers: RequestHeaders, body: bytes, reply: Reply, started: float, inside: bool
    ) -> None:
        """Answer a V1 prediction, by a process or in memory; raises what it is refused with."""
        if not self._forward(service, "v1", "POST", path, headers, body, reply, started, inside):
            self._predict_v1(service, headers, body, reply, started)

    def _predict_v1(self, service: str, headers: RequestHeaders, body: bytes, reply: Reply, started: float) -> None:
        serving = self.find(service)
        answers.check_body(headers, body)
        rows, features = payloads_v1.read(body, serving.stable.spec)
        caller = self.callers.read(headers, len(rows), serving.route, body)
        exchange = Exchange(self.context, serving, "v1", started, caller, payloads_v1_write, reply)
        exchange.start(rows, features, serving.options.probabilities and serving.stable.probabilities)

    def _infer_v2(
        self, service: str, version: str, headers: RequestHeaders, body: bytes, reply: Reply, started: float
    ) -> None:
        serving = self.find(service)
        request = v2_rest.read(headers, body, serving)
        writer = v2_rest.Writer(service, serving, request, reply)
        answer = writer.reply if request.binary else reply
        self.infer(
            serving, version, request, headers, v2_rest.json_of(headers, body), "v2", writer.write, answer, started
        )

    def infer(
        self, serving: Serving, version: str, request: v2.Request, headers: RequestHeaders, body: bytes,
        protocol: str, write: Write, reply: Reply, started: float,
    ) -> None:  # fmt: skip
        """Answer a V2 request, however it came.

        :param version: the version the client names; empty when the route decides.
        :param body: the request's JSON, if it has any.
        :raises OndolError: when it is refused before it began.
        """
        caller = self.callers.read(headers, len(request.rows), serving.route, body, request.id)
        caller.timeout = min(caller.timeout, request.timeout)
        if version:
            caller.pinned = v2_documents.arm_of(serving, version)
        request.id = caller.ids[0]
        exchange = Exchange(self.context, serving, protocol, started, caller, write, reply)
        exchange.start(request.rows, request.features, request.probabilities)

    def _other(self, method: str, path: str, headers: RequestHeaders, body: bytes, reply: Reply, inside: bool) -> bool:
        if path == "/ondol/v1/labels":
            _only("POST", method)
            answers.check_body(headers, body)
            self._commit(labels.store_all, labels.read(body), reply)
            return True
        if path == "/ondol/v1/metrics":
            _only("POST", method)
            answers.check_body(headers, body)
            self._commit(posted_metrics.store_all, posted_metrics.read(body), reply)
            return True
        if path.startswith(_V1) and path.endswith(":explain"):
            _only("POST", method)
            service = path[len(_V1) : -len(":explain")]
            reply = self.around.tapped(service, "explain", headers, body, reply, inside)
            if self._forward(service, "explain", method, path, headers, body, reply, time.perf_counter(), inside):
                return True
            raise _no_explainer(self.find(service))
        if path.startswith(_REPOSITORY):
            return self._repository(method, path[len(_REPOSITORY) :], body, reply)
        scoring = invocations.match(path)
        if scoring is not None:
            self._score(method, *scoring, headers, body, reply, time.perf_counter())
            return True
        if (
            path.startswith(_V2)
            and path.count("/") == 3
            and self._forward(path[len(_V2) :], "v2", method, path, headers, body, reply, time.perf_counter(), inside)
        ):
            return True
        found = self._document(path)
        if found is None:
            return False
        _only("GET", method)
        status, document = found
        reply(status, payloads_v1.encode(document) if document is not None else b"", [answers.JSON])
        return True

    def _commit(self, write: Callable[[Store, Any], Any], given: Any, reply: Reply) -> None:
        """Commit what is known later, then acknowledge it; it may come before its request: the store joins by id."""
        future = asyncio.get_running_loop().run_in_executor(None, write, self._store, given)

        def done(finished: asyncio.Future[Any]) -> None:
            error = finished.exception()
            if error is None:
                reply(200, payloads_v1.encode(finished.result()), [answers.JSON])
            elif isinstance(error, errors.OndolError):
                answers.refuse(reply, error)
            else:
                answers.refuse(reply, errors.OndolError(f"it was not stored: {error}"))

        future.add_done_callback(done)

    def _score(
        self, method: str, named: str, path: str, headers: RequestHeaders, body: bytes, reply: Reply, started: float
    ) -> None:
        """Answer one of MLflow's paths."""
        if path != "/invocations":
            _only("GET", method)
            invocations.probe(path, named, self.models, reply)
            return
        answer, service = invocations.replying(reply), ""
        try:
            _only("POST", method)
            service = invocations.service_of(named, headers, self.models)
            serving = self.find(service)
            rows = invocations.read(headers, body, serving)
            caller = self.callers.read(headers, len(rows), serving.route, body)
            exchange = Exchange(self.context, serving, "mlflow", started, caller, payloads_v1_write, answer)
            features = payloads_v1.encode(rows).decode()
            exchange.start(rows, features, serving.options.probabilities and serving.stable.probabilities)
        except errors.OndolError as error:
            status = answers.refuse(answer, error, _known_id(headers))
            self._refused(service, "mlflow", status, started)

    def _repository(self, method: str, path: str, body: bytes, reply: Reply) -> bool:
        name, _, verb = path.removeprefix("models/").rpartition("/")
        if path == "index":
            _only("POST", method)
            found: Any = repository.index(self.models, _only_ready(_object(body)))
        elif path.startswith("models/") and name and verb in ("load", "unload"):
            _only("POST", method)
            asked = _object(body)
            if verb == "unload":
                raise repository.unload(self.models, name)
            repository.load(self.models, name, asked.get("parameters"))
            found = {"name": name, "load": True}
        else:
            return False
        reply(200, payloads_v1.encode(found), [answers.JSON])
        return True

    def _document(self, path: str) -> tuple[int, Any] | None:
        if path == "/":
            return 200, {"status": "alive"}
        if path in ("/v1/models", "/v1/models/"):
            return 200, {"models": sorted(self.models.serving)}
        if path.startswith(_V1) and ":" not in path:
            serving = self.find(path[len(_V1) :])
            return 200, {"name": serving.route.service, "ready": True}
        if path == "/v2" or path.startswith("/v2/"):
            return v2_documents.document(path, self.find, self.draining, self.models)
        return None


def payloads_v1_write(predictions: list[Any], _: Any) -> bytes:
    """Write V1's answer; it says nothing of the model."""
    return payloads_v1.write(predictions)


def _only(allowed: str, method: str) -> None:
    if method != allowed:
        raise errors.UsageError(f"method {method!r} is not served here", way_out=f"Use {allowed}.", code="USE-020")


def _no_explainer(serving: Serving) -> errors.NotFoundError:
    return errors.NotFoundError(
        f"{serving.route.service!r} has no explainer", where="path", code="NOF-370",
        way_out="Ask `:predict`, or give the InferenceService an explainer.",
    )  # fmt: skip


def _object(body: bytes) -> Json:
    """Return a body that may be left out."""
    try:
        found = msgspec.json.decode(body or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise inputs.wrong(f"not valid JSON: {error}", "$", "INP-200") from None
    if not isinstance(found, dict):
        raise inputs.wrong("the body must be a JSON object", "$", "INP-201")
    return found


def _only_ready(asked: Json) -> bool:
    ready = asked.get("ready", False)
    if not isinstance(ready, bool):
        raise inputs.wrong(f"{ready!r} is no boolean", "ready", "INP-201")
    return ready


def _known_id(headers: RequestHeaders) -> Headers:
    own = headers.get(b"x-request-id")
    return [(b"x-request-id", own)] if own else []
