"""The walk of one request through a graph: Sequence, Switch, Ensemble, Splitter, nested.

It answers what KServe's router (cmd/router) answers: a step that cannot be reached fails the whole request with 500,
Soft or not; a step's own bad status only ends a node when the step is Hard; a node that is a step passes its failure on
as 500. Weights are drawn anew for every request.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from ondol.formats import gjson

if TYPE_CHECKING:
    from ondol.formats.inference_graph import InferenceGraph, Node, Step

_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Answer:
    """What a step or a node answered."""

    status: int
    body: bytes

    @property
    def good(self) -> bool:
        return 200 <= self.status <= 299


class RoutingError(Exception):
    """The graph itself could not go on.

    :param status: 404 when no branch of a Switch matches, else 500.
    """

    def __init__(self, status: int, cause: str) -> None:
        super().__init__(cause)
        self.status = status
        self.cause = cause


Call = Callable[["Step", bytes], Awaitable[Answer]]
"""Sends a body to a step's service or URL; raises `RoutingError` when it cannot be reached."""


class Router:
    """One graph, ready to be walked.

    :param call: how steps are reached.
    :param draw: a number from 0 to 99 for a Splitter.
    """

    def __init__(self, graph: InferenceGraph, call: Call, draw: Callable[[], int] | None = None) -> None:
        self.graph = graph
        self._call = call
        self._draw = draw or (lambda: secrets.randbelow(100))

    async def answer(self, body: bytes) -> Answer:
        """Send a request through the graph.

        :raises RoutingError: when no answer of a step is the graph's answer.
        """
        from ondol.formats.inference_graph import ROOT  # not before there is a graph: it takes long to import

        return await self._node(ROOT, body)

    async def _node(self, name: str, body: bytes) -> Answer:
        node = self.graph.nodes[name]
        match node.router:
            case "Splitter":
                return await self._step(self._drawn(node), body)
            case "Switch":
                return await self._step(_matching(node, body), body)
            case "Ensemble":
                return await self._ensemble(node, body)
            case "Sequence":
                return await self._sequence(node, body)

    async def _step(self, step: Step, body: bytes) -> Answer:
        if not step.node:
            return await self._call(step, body)
        try:
            return await self._node(step.node, body)
        except RoutingError as error:
            raise RoutingError(500, error.cause) from error

    def _drawn(self, node: Node) -> Step:
        point, end = self._draw(), 0
        for step in node.steps:
            end += step.weight
            if point < end:
                return step
        raise RoutingError(500, "no route was selected by the splitter")

    async def _sequence(self, node: Node, body: bytes) -> Answer:
        if not node.steps:
            raise RoutingError(500, "the sequence has no steps")
        answer: Answer | None = None
        for step in node.steps:
            request = answer.body if step.from_response and answer is not None else body
            if step.map_predictions:
                request = _as_instances(request)
            if step.condition:
                document = _document(answer.body if answer is not None else b"")
                if document is gjson.MISSING or answer is None:
                    raise RoutingError(500, "invalid response")
                if not gjson.exists(document, step.condition):
                    return Answer(200, answer.body)
            answer = await self._step(step, request)
            if step.hard and not answer.good:
                break
        assert answer is not None  # there is a step
        return answer

    async def _ensemble(self, node: Node, body: bytes) -> Answer:
        tasks = [asyncio.ensure_future(self._member(step, body)) for step in node.steps]
        try:
            return await _merged(node, tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _member(self, step: Step, body: bytes) -> tuple[Any, int]:
        answer = await self._step(step, body)
        document = _document(answer.body)
        if document is gjson.MISSING:
            raise RoutingError(500, f"step {step.name or step.service!r} did not answer JSON")
        if not isinstance(document, dict) and document is not None:
            raise RoutingError(500, f"step {step.name or step.service!r} answered no JSON object")
        return document, answer.status


async def _merged(node: Node, tasks: Sequence[asyncio.Future[tuple[Any, int]]]) -> Answer:
    """Gather in the order of the steps; whatever fails meanwhile ends it."""
    found: dict[str, Any] = {}
    for index, (step, task) in enumerate(zip(node.steps, tasks, strict=True)):
        while not task.done():
            pending = [one for one in tasks if not one.done()]
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()  # raises what it failed with
        document, status = task.result()
        if step.hard and not 200 <= status <= 299:
            return Answer(status, _encode(document))
        found[step.key(index)] = document
    return Answer(200, _encode(found))


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")  # as Go writes maps


def _document(body: bytes) -> Any:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return gjson.MISSING


def _matching(node: Node, body: bytes) -> Step:
    document = _document(body)
    if document is not gjson.MISSING:
        for step in node.steps:
            if gjson.exists(document, step.condition):
                return step
    raise RoutingError(404, "None of the routes matched with the switch condition")


def _as_instances(body: bytes) -> bytes:
    """Return `{"instances": predictions}` of an answer that has predictions; anything else as it is."""
    document = _document(body)
    if not isinstance(document, dict):
        return body
    predictions, instances = document.get("predictions"), document.get("instances")
    if not isinstance(predictions, list) or not predictions or not isinstance(instances, (list, type(None))):
        return body
    return _encode({"instances": predictions})
