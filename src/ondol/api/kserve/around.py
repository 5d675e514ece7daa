"""What a manifest declares around a component: the payload logger, and inside of it KServe's batcher.

Nearly always nothing is, and then a request pays for one look-up. Must not know how a request is answered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ondol.api.kserve import answers, forward
from ondol.api.kserve.answers import Reply
from ondol.api.kserve.batcher import Batches
from ondol.api.kserve.caller import RequestHeaders
from ondol.api.kserve.payload_events import PayloadEvents, Source
from ondol.base import errors
from ondol.serving.models import Models
from ondol.serving.options import Extras

log = logging.getLogger("ondol.serving")

Answer = Callable[[str, str, RequestHeaders, bytes, Reply, float, bool], None]
"""Service, path, headers, body, reply, when it began, and whether a transformer asks."""


class Around:
    """Batches and events of all services.

    :param answer: answers one V1 prediction; raises what it is refused with.
    """

    def __init__(self, models: Models, answer: Answer) -> None:
        self._models = models
        self._answer = answer
        self.events = PayloadEvents()
        self._batches: dict[tuple[str, str], Batches] = {}

    def _declared(self, service: str, protocol: str, inside: bool) -> tuple[str, Extras] | None:
        """Return the component that gets a request, and what stands around it."""
        serving = self._models.serving.get(service)
        if serving is None or not serving.options.extras:
            return None
        component = forward.component_for(serving, protocol, inside) or "predictor"
        extras = serving.options.extras.get(component)
        return (component, extras) if extras is not None else None

    def tapped(
        self, service: str, protocol: str, headers: RequestHeaders, body: bytes, reply: Reply, inside: bool
    ) -> Reply:
        """Send the payloads as events where a logger is declared; return the reply to use from now on."""
        declared = self._declared(service, protocol, inside)
        if declared is None or declared[1].logger is None:
            return reply
        component, extras = declared
        assert extras.logger is not None  # looked at above
        source = Source(extras.logger, service, extras.namespace, component, extras.annotations)
        return self.events.tap(source, headers, body, reply)

    def held(self, service: str, path: str, headers: RequestHeaders, body: bytes, reply: Reply, inside: bool) -> bool:
        """Let a V1 prediction wait for its batch where a batcher is declared; return whether it waits.

        :raises InputError: when it has no instances to batch.
        """
        declared = self._declared(service, "v1", inside)
        if declared is None or declared[1].batcher is None:
            return False
        (component, extras), batcher = declared, declared[1].batcher
        answers.check_body(headers, body)
        batches = self._batches.get((service, component))
        if batches is None or batches.options != extras.batcher:

            def dispatch(headers: RequestHeaders, body: bytes, reply: Reply) -> None:
                self._guarded(service, path, headers, body, reply, inside)

            def together() -> bool:
                serving = self._models.serving.get(service)
                alone = serving is None or serving.route.candidate or not forward.component_for(serving, "v1", inside)
                return not alone

            batches = self._batches[service, component] = Batches(batcher, dispatch, together)
        batches.add(headers, body, reply)
        return True

    def _guarded(
        self, service: str, path: str, headers: RequestHeaders, body: bytes, reply: Reply, inside: bool
    ) -> None:
        """Answer a request that waited; whatever happens is its answer, and not its neighbours'."""
        try:
            self._answer(service, path, headers, body, reply, time.perf_counter(), inside)
        except errors.OndolError as error:
            answers.refuse(reply, error)
        except Exception as error:  # a bug of ours: the others of the batch must be answered
            log.exception("%s failed", path)
            answers.refuse(reply, errors.OndolError(f"internal error: {type(error).__name__}"))
