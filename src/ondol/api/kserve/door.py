"""The inference protocols' paths: exact dispatch, no framework, no work but finding who answers.

`handle` is called with a whole request and replies now or later through a callback; it never raises and never awaits,
so that it can sit behind ASGI as well as directly on a connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ondol.api.kserve import (
    answers,
    aside,
    bodies,
    forward,
    invocations,
    labels,
    posted_metrics,
    repository,
    v2_documents,
    v2_rest,
)
from ondol.api.kserve.answers import Headers, Reply
from ondol.api.kserve.around import Around
from ondol.api.kserve.call import Call, Read
from ondol.api.kserve.caller import Callers, Question, RequestHeaders
from ondol.api.kserve.exchange import Context, Exchange, Write
from ondol.base import errors
from ondol.serving import payloads_v1
from ondol.serving.models import Models, Serving
from ondol.store.connection import Store

log = logging.getLogger("ondol.serving")

_V1, _V2 = "/v1/models/", "/v2/models/"


class KServeDoor:
    """V1 and V2 over the models in memory."""

    def __init__(self, models: Models, context: Context, store: Store) -> None:
        self.models = models
        self.context = context
        self.callers = Callers()
        self.readers = aside.Readers()
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
                if len(body) > bodies.SMALL_BYTES:
                    self._inflate(method, path, headers, body, reply, inside)
                    return True
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
                    self._ask(Call(self.find(service), "v2", headers, body, reply, started, version), v2_rest.read)
            else:
                return self._other(method, path, headers, body, reply, inside)
        except Exception as error:  # noqa: BLE001 - the connection and the process must live on
            self._fail(error, service, path[1:3] if service else "", headers, reply, started)
        return True

    def _inflate(
        self, method: str, path: str, headers: RequestHeaders, body: bytes, reply: Reply, inside: bool
    ) -> None:
        """Inflate a body beside the event loop, then answer the request as if it had come so."""
        plain = {name: value for name, value in headers.items() if name != b"content-encoding"}

        def begin(found: bytes) -> None:
            if not self.handle(method, path, plain, found, reply, inside):
                answers.refuse(reply, errors.NotFoundError(f"nothing is served at {path!r}", code="NOF-021"))

        size = min(answers.MAX_BODY_BYTES, len(body) * bodies.USUAL_RATIO)
        fail = partial(self._fail, service="", protocol="", headers=headers, reply=reply, started=time.perf_counter())
        self.readers.run(size, partial(bodies.inflated, headers, body), begin, fail)

    def _ask(self, call: Call, read: Callable[[Call], Read]) -> None:
        """Read a request and answer it; a large one is read beside the event loop."""
        if len(call.body) <= aside.LARGE_BYTES:
            self.begin(call, *read(call))
            return

        def fail(error: Exception) -> None:
            self._fail(error, call.serving.route.service, call.protocol, call.headers, call.reply, call.started)

        self.readers.run(len(call.body), partial(read, call), lambda found: self.begin(call, *found), fail)

    def begin(self, call: Call, question: Question, write: Write, reply: Reply) -> None:
        """Answer a request that was read, however it came.

        :raises OndolError: when it is refused before it began.
        """
        serving = call.serving
        caller = self.callers.read(call.headers, len(question.rows), serving.route, call.body, question.id)
        if question.timeout < caller.timeout:
            caller.timeout = question.timeout
        if call.version:
            caller.pinned = v2_documents.arm_of(serving, call.version)
        question.id = caller.ids[0]
        exchange = Exchange(self.context, serving, call.protocol, call.started, caller, write, reply)
        exchange.start(question.rows, question.features, question.probabilities)

    def _fail(
        self, error: Exception, service: str, protocol: str, headers: RequestHeaders, reply: Reply, started: float
    ) -> None:
        """Answer with an error and count it; one that is not ours is a bug, of which the caller learns no more."""
        if not isinstance(error, errors.OndolError):
            log.error("%s %s failed", protocol, service, exc_info=error)
            error = errors.OndolError(f"internal error: {type(error).__name__}")
        status = answers.refuse(reply, error, _known_id(headers))
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
            serving, component, protocol, method, path, headers, body, reply, started, inside, caller,
            forward.OVER_HTTP,
        )  # fmt: skip
        self.forwarding.start(request)
        return True

    def _v1(
        self, service: str, path: str, headers: RequestHeaders, body: bytes, reply: Reply, started: float, inside: bool
    ) -> None:
        """Answer a V1 prediction, by a process or in memory; raises what it is refused with."""
        if not self._forward(service, "v1", "POST", path, headers, body, reply, started, inside):
            serving = self.find(service)
            answers.check_body(headers, body)
            self._ask(Call(serving, "v1", headers, body, reply, started), _read_v1)

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
        if path.startswith(repository.PATH):
            found = repository.answer(self.models, path, body)
            _only("POST", method)
            reply(200, payloads_v1.encode(found), [answers.JSON])
            return True
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
            answer = self.around.tapped(service, "mlflow", headers, body, answer, False)
            if not self._forward(service, "mlflow", method, path, headers, body, answer, started, False):
                self._ask(Call(self.find(service), "mlflow", headers, body, answer, started), invocations.read)
        except Exception as error:  # noqa: BLE001 - the connection and the process must live on
            self._fail(error, service, "mlflow", headers, answer, started)

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


def _read_v1(call: Call) -> Read:
    serving = call.serving
    rows, features = payloads_v1.read(call.body, serving.stable.spec)
    probabilities = serving.options.probabilities and serving.stable.probabilities
    return Question(rows, features, probabilities), payloads_v1.write_answer, call.reply


def _only(allowed: str, method: str) -> None:
    if method != allowed:
        raise errors.UsageError(f"method {method!r} is not served here", way_out=f"Use {allowed}.", code="USE-020")


def _no_explainer(serving: Serving) -> errors.NotFoundError:
    return errors.NotFoundError(
        f"{serving.route.service!r} has no explainer", where="path", code="NOF-370",
        way_out="Ask `:predict`, or give the InferenceService an explainer.",
    )  # fmt: skip


def _known_id(headers: RequestHeaders) -> Headers:
    own = headers.get(b"x-request-id")
    return [(b"x-request-id", own)] if own else []
