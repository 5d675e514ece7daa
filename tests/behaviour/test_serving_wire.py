"""HTTP/1.1 byte by byte on a real data plane: what clients write, and how, must not change what they are answered."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from itertools import pairwise
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from tests.behaviour import serving_tools
from tests.behaviour.serving_tools import Plane
from tests.conftest import new_settings
from uvicorn.server import ServerState

from ondol.api.kserve import answers, fast_lane
from ondol.store.connection import Store

X = serving_tools.matrix(50, 3)
MODEL = LogisticRegression().fit(X, (X[:, 0] > 0).astype(int))
BODY = json.dumps({"instances": X[:2].tolist()}).encode()
EXPECTED = {"predictions": MODEL.predict(X[:2]).tolist()}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("wire")
    home = new_settings(folder)
    with Store(home.database) as store, serving_tools.running(home, store) as plane:
        plane.serve("m", MODEL, folder / "m")
        yield plane


def head(*lines: str, path: str = "/v1/models/m:predict", version: str = "1.1", method: str = "POST") -> bytes:
    """Return a request's head with the usual headers."""
    return "\r\n".join(
        [f"{method} {path} HTTP/{version}", "host: x", "content-type: application/json", *lines]
    ).encode()


def whole(path: str = "/v1/models/m:predict") -> bytes:
    return head(f"content-length: {len(BODY)}", path=path) + b"\r\n\r\n" + BODY


class Connection:
    """A socket to a data plane."""

    def __init__(self, plane: Plane) -> None:
        address = plane.settings.data
        self.socket = socket.create_connection((address.host, address.port), timeout=120)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Connection:
        self.socket.sendall(data)
        return self

    def answer(self) -> tuple[int, Any]:
        """Return status and JSON of the next answer; nothing of what follows it is read."""
        response = HTTPResponse(Unbuffered(self.socket))  # type: ignore[arg-type]
        response.begin()
        text = response.read()
        return response.status, json.loads(text) if text else None


class Unbuffered:
    """A socket whose file reads no further than it is asked to."""

    def __init__(self, found: socket.socket) -> None:
        self._socket = found

    def makefile(self, _: str) -> Any:
        return self._socket.makefile("rb", buffering=0)


def test_a_connection_answers_again_and_again(plane: Plane) -> None:
    with Connection(plane) as connection:
        for path in (
            "/v1/models/m:predict",
            "/v1/models/m:predict",
            "/v1/models/%6d:predict",
            "/v1/models/m:predict?x=1",
        ):
            assert connection.send(whole(path)).answer() == (200, EXPECTED)


def test_pipelined_requests_are_answered_in_order(plane: Plane) -> None:
    asked = ["/v1/models/m:predict", "/v1/models/nobody:predict", "/v2/health/live", "/v1/models/m:predict"]
    with Connection(plane) as connection:
        connection.send(b"".join(whole(path) for path in asked))
        assert [connection.answer()[0] for _ in asked] == [200, 404, 405, 200]


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(1, len(whole()) - 1), max_size=6))
def test_a_request_may_come_in_any_pieces(plane: Plane, cuts: list[int]) -> None:
    data, places = whole(), [0, *sorted(cuts), len(whole())]
    with Connection(plane) as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, stop in pairwise(places):
            connection.send(data[start:stop])
        assert connection.answer() == (200, EXPECTED)


def test_a_body_may_be_chunked(plane: Plane) -> None:
    chunks = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:8], BODY[8:]))
    with Connection(plane) as connection:
        for _ in range(2):
            connection.send(head("transfer-encoding: chunked") + b"\r\n\r\n" + chunks + b"0\r\ntrailer: x\r\n\r\n")
            assert connection.answer() == (200, EXPECTED)


def test_a_client_that_waits_for_100_is_told_to_go_on(plane: Plane) -> None:
    with Connection(plane) as connection:
        connection.send(head(f"content-length: {len(BODY)}", "expect: 100-continue") + b"\r\n\r\n")
        assert connection.socket.recv(100).startswith(b"HTTP/1.1 100")
        assert connection.send(BODY).answer() == (200, EXPECTED)


def test_who_asks_to_close_is_closed(plane: Plane) -> None:
    for lines, version in (("connection: close",), "1.1"), ((), "1.0"):
        with Connection(plane) as connection:
            connection.send(head(f"content-length: {len(BODY)}", *lines, version=version) + b"\r\n\r\n" + BODY)
            assert connection.answer() == (200, EXPECTED)
            assert connection.socket.recv(1) == b""


def test_a_request_that_says_two_lengths_is_refused(plane: Plane) -> None:
    """Request smuggling lives on proxies and servers that disagree on where a body ends."""
    for lines in (
        (f"content-length: {len(BODY)}", "transfer-encoding: chunked"),
        (f"content-length: {len(BODY)}", "content-length: 3"),
        ("content-length: -1",),
        ("transfer-encoding: chunked, identity",),
    ):
        with Connection(plane) as connection:
            connection.send(head(*lines) + b"\r\n\r\n" + BODY)
            assert connection.socket.recv(12) in (b"HTTP/1.1 400", b"")
    with Connection(plane) as connection:
        assert connection.send(b"\x16\x03\x01 not http\r\n\r\n").socket.recv(12) == b"HTTP/1.1 400"


def test_a_client_that_goes_away_harms_nobody(plane: Plane) -> None:
    for data in (b"", b"POS", whole()[:-5], whole()):
        with Connection(plane) as connection:
            connection.send(data)
    assert plane.predict("m", X[:2].tolist()).json() == EXPECTED


class Lane:
    """The protocol alone, on an event loop whose clock the test reads ahead."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.made: list[fast_lane.FastLane] = []

    def respond(self, method: str, path: str, headers: Any, body: bytes, reply: answers.Reply) -> None:
        reply(200, self._answer, [answers.JSON])

    async def connect(self) -> tuple[asyncio.Server, socket.socket]:
        """Listen, and return the server and a client's socket with a small buffer."""
        config, kind = uvicorn.Config(_no_app, log_config=None), fast_lane.protocol_class(self.respond)

        def make() -> fast_lane.FastLane:
            self.made.append(kind(config=config, server_state=ServerState(), app_state={}))
            return self.made[-1]

        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, server.sockets[0].getsockname())
        return server, client


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing goes through ASGI here")


async def _until(condition: Any) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.01)


def test_slow_clients_are_let_go() -> None:
    """Slow headers, a slow body, silence, and an answer that is not fetched; one that is fetched slowly may go on."""

    async def story(data: bytes, ahead: float, fetches: bool = False, answer: bytes = b"{}") -> bool:
        lane = Lane(answer)
        server, client = await lane.connect()
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(client, data)
            await _until(lambda: lane.made)
            (protocol,) = lane.made
            if len(answer) > 10:
                await _until(lambda: protocol.stuck_since)
            else:
                await asyncio.sleep(0.05)
            protocol.expire(loop.time() + 1.0)
            assert not protocol.transport.is_closing()
            if fetches:
                left = protocol.transport.get_write_buffer_size()
                while protocol.transport.get_write_buffer_size() == left:
                    await loop.sock_recv(client, 65536)
            protocol.expire(loop.time() + ahead)
            return bool(protocol.transport.is_closing())
        finally:
            client.close()
            server.close()
            for protocol in lane.made:
                protocol.transport.abort()
            await asyncio.sleep(0.05)

    late, large = fast_lane.READ_SECONDS + 1, b"x" * 20_000_000
    assert asyncio.run(story(b"POST /v1/models/m:pre", late))
    assert asyncio.run(story(whole()[:-3], late))
    assert not asyncio.run(story(whole(), late))  # answered, and not idle for long
    assert asyncio.run(story(whole(), fast_lane.IDLE_SECONDS + 1))
    assert asyncio.run(story(whole(), fast_lane.WRITE_SECONDS + 1, answer=large))
    assert not asyncio.run(story(whole(), fast_lane.WRITE_SECONDS + 1, fetches=True, answer=large))


def test_a_client_that_does_not_fetch_is_not_read_from() -> None:
    async def story() -> None:
        lane = Lane(b"x" * 20_000_000)
        server, client = await lane.connect()
        await asyncio.get_running_loop().sock_sendall(client, whole())
        await _until(lambda: lane.made and lane.made[0].stuck_since)
        await asyncio.get_running_loop().sock_sendall(client, whole())
        await asyncio.sleep(0.2)
        assert lane.made[0].server_state.total_requests == 1
        client.close()
        server.close()
        lane.made[0].transport.abort()
        await asyncio.sleep(0.05)

    asyncio.run(story())


def chunked(body: bytes) -> bytes:
    return head("transfer-encoding: chunked") + b"\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def sized(body: bytes, *lines: str, path: str = "/v1/models/m:predict") -> bytes:
    return head(f"content-length: {len(body)}", *lines, path=path) + b"\r\n\r\n" + body


REQUESTS = (
    sized(b"one"), sized(b"two"), sized(b"longer"), sized(b""), sized(b"one", path="/v2/models/m/infer"),
    sized(b"one", "x-request-id: 1"), head(method="GET") + b"\r\n\r\n", chunked(b"one"), b"\r\n" + sized(b"one"),
    sized(b"one") + sized(b"two"), sized(b"one") + sized(b"two", path="/v2/models/m/infer"), sized(sized(b"inside")),
)  # fmt: skip


class Recording(asyncio.Transport):
    """A transport without a network that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self._closing = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True


def heard(pieces: list[bytes]) -> tuple[list[Any], bytes, type[fast_lane.FastLane]]:
    """Return what a connection that gets these pieces asks for, what it answers, and its protocol."""
    asked: list[Any] = []

    def respond(method: str, path: str, headers: Any, body: bytes, reply: answers.Reply) -> None:
        asked.append((method, path, headers, body))
        reply(200, b"%d" % len(asked), [answers.JSON])

    kind, transport, loop = fast_lane.protocol_class(respond), Recording(), asyncio.new_event_loop()
    try:
        protocol = kind(uvicorn.Config(_no_app, log_config=None), ServerState(), {}, loop)
        protocol.connection_made(transport)
        for piece in pieces:
            if not transport.is_closing():
                protocol.data_received(piece)
    finally:
        loop.close()
    return asked, transport.written, kind


@settings(deadline=None)
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=12), st.lists(st.integers(0, 2_000), max_size=3))
def test_heads_that_are_known_say_what_the_parser_says(requests: list[bytes], cuts: list[int]) -> None:
    """Byte by byte no head is ever looked up; in whole requests, and cut anywhere, the same is asked and answered."""
    requests = [*requests, sized(b"one", "connection: close")]
    stream = b"".join(requests)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    expected = heard([stream[place : place + 1] for place in range(len(stream))])[:2]
    assert heard(requests)[:2] == expected
    assert heard([stream[start:stop] for start, stop in pairwise(places)])[:2] == expected


def test_a_head_that_came_twice_is_known_and_one_of_its_own_is_not() -> None:
    again = sized(b"one")
    _, _, kind = heard([again, again, again, *(sized(b"one", f"x-request-id: {number}") for number in range(5))])
    known = kind.heads.find(again[: -len(b"one")])
    assert known is not None
    assert (known.path, known.length) == ("/v1/models/m:predict", 3)
    assert kind.heads.find(sized(b"one", "x-request-id: 4")[: -len(b"one")]) is None


def test_a_body_that_is_a_known_request_is_a_body() -> None:
    inner = sized(b"one")
    outer = sized(inner)
    asked, _, _ = heard([inner, inner, inner, outer[: -len(inner)], inner])
    assert [body for _, _, _, body in asked] == [b"one", b"one", b"one", inner]
