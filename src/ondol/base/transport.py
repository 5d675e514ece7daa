"""HTTP/1.1 out, to providers and to workers: a small connection pool on asyncio and httptools.

It exists because our own work must stay small beside a call: a general client costs about one millisecond of
processor time a request, this one a tenth. Behind a proxy (`HTTPS_PROXY` …) `httpx` does the work instead.

Must not know what is sent. Retries nothing except a kept-alive connection that the other side had closed meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import urllib.request
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from ondol.base import errors

_HIGH_WATER = 1 << 20  # bytes of an unread body after which reading pauses
_IDLE_CONNECTIONS = 256  # kept open per address


class ConnectFailed(errors.UpstreamError):
    """Nothing was sent: it is safe to try again."""

    default_code = "UPS-102"


class Broken(errors.UpstreamError):
    """The connection ended before the answer did."""

    default_code = "UPS-103"


class TimedOut(errors.UpstreamError):
    """No answer in time."""

    default_code = "UPS-104"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


def target_of(url: str) -> Target:
    """Read an http(s) URL.

    :raises InputError: when it is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise errors.InputError(f"{url!r} is not an http:// or https:// address", code="INP-160")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, parts.hostname, port, path)


class _Connection(asyncio.Protocol):
    """One connection; at most one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self._waiter: asyncio.Future[None] | None = None
        self.reset()

    def reset(self) -> None:
        import httptools

        self.parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: deque[bytes] = deque()
        self.buffered = 0
        self.received = False
        self.headers_done = False
        self.complete = False
        self.keep_alive = False
        self.error: Exception | None = None
        self._paused = False

    # asyncio's side
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        import httptools

        self.received = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.error = Broken(f"not an HTTP answer: {error}")
            self.close()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if not self.complete and self.headers_done and not self._has_length and exc is None:
            self.complete = True  # a body that ends with the connection
        self._wake()

    # httptools' side
    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        self.keep_alive = self.parser.should_keep_alive()
        self.headers_done = self.status >= 200
        if not self.headers_done:
            self.headers.clear()

    def on_body(self, data: bytes) -> None:
        self.body.append(data)
        self.buffered += len(data)
        if self.buffered > _HIGH_WATER and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.headers_done:
            self.complete = True

    # our side
    @property
    def _has_length(self) -> bool:
        return "content-length" in self.headers or "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def usable(self) -> bool:
        return not self.closed and self.transport is not None and not self.transport.is_closing()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self) -> bytes:
        data = b"".join(self.body)
        self.body.clear()
        self.buffered = 0
        if self._paused and self.transport is not None and self.usable:
            self._paused = False
            self.transport.resume_reading()
        return data

    def close(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.abort()


class Response:
    """An answer whose head has arrived; its body is read with `read` or `chunks`, else `aclose` must be called."""

    def __init__(self, client: Client, origin: str, connection: _Connection, timeout: float, url: str) -> None:
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        self._client, self._origin, self._connection = client, origin, connection
        self._timeout, self._url, self._done = timeout, url, False

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        :raises Broken: when the other side stops in the middle. TimedOut: when nothing comes for the timeout.
        """
        one = self._connection
        try:
            while True:
                if one.body:
                    yield one.take()
                elif one.complete:
                    break
                elif one.closed or one.error is not None:
                    raise one.error or Broken(f"{self._url} stopped in the middle of its answer", where=self._url)
                else:
                    await _in_time(one.wait(), self._timeout, self._url)
            self._client.give_back(self._origin, one)
            self._done = True
        finally:
            self.aclose()

    async def read(self) -> bytes:
        """Return the whole body; raises as `chunks`."""
        return b"".join([chunk async for chunk in self.chunks()])

    def aclose(self) -> None:
        """Hang up unless the body was read to its end."""
        if not self._done:
            self._done = True
            self._connection.close()


async def _in_time(work: Any, timeout: float, url: str) -> Any:
    try:
        async with asyncio.timeout(timeout):
            return await work
    except TimeoutError as error:
        raise TimedOut(
            f"no answer within {timeout:g} s", where=url, way_out="Try again, or raise its `timeout`."
        ) from error


class Client:
    """Keeps connections open, per event loop and address."""

    def __init__(self) -> None:
        self._idle: dict[str, list[_Connection]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tls: ssl.SSLContext | None = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float = 60.0) -> Any:
        """Send a POST and return the answer once its head is here: `.status`, `.headers`, `.read()`, `.chunks()`.

        :param timeout: seconds for connecting, for the head, and between two pieces of the body.
        :raises ConnectFailed, Broken, TimedOut: all `UpstreamError`.
        """
        return await self.send("POST", url, headers, body, timeout)

    async def get(self, url: str, headers: Mapping[str, str], timeout: float = 10.0) -> Any:
        """Send a GET; answers and raises as `post`."""
        return await self.send("GET", url, headers, b"", timeout)

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Any:
        """Send any request; answers and raises as `post`."""
        target = target_of(url)
        if _proxied(target):
            from ondol.base import proxied

            return await proxied.send(method, url, headers, body, timeout)
        head = [f"{method} {target.path} HTTP/1.1", f"host: {_host(target)}", f"content-length: {len(body)}"]
        head.extend(f"{name}: {_clean(value)}" for name, value in headers.items())
        message = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + body
        for attempt in (0, 1):
            try:
                connection, reused = await self._connection(target, timeout, fresh=attempt > 0)
            except ConnectFailed as error:
                if attempt:  # it was sent once, and whoever had it is gone
                    raise Broken("hung up without an answer", where=url) from error
                raise
            try:
                assert connection.transport is not None  # it is connected
                connection.transport.write(message)
                await _in_time(self._head(connection), timeout, url)
            except BaseException:
                connection.close()
                raise
            if connection.headers_done:
                return Response(self, target.origin, connection, timeout, url)
            connection.close()
            if not (reused and not connection.received):
                break
        raise connection.error or Broken("hung up without an answer", where=url)

    @staticmethod
    async def _head(connection: _Connection) -> None:
        while not (connection.headers_done or connection.closed):
            await connection.wait()

    async def _connection(self, target: Target, timeout: float, fresh: bool) -> tuple[_Connection, bool]:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # connections belong to the loop that made them
            self._idle, self._loop = {}, loop
        idle = self._idle.get(target.origin, [])
        while idle and not fresh:
            connection = idle.pop()
            if connection.usable:
                connection.reset()
                return connection, True
        try:
            async with asyncio.timeout(min(timeout, 10.0)):
                _, made = await loop.create_connection(
                    _Connection,
                    target.host,
                    target.port,
                    ssl=self._context() if target.scheme == "https" else None,
                )
        except (OSError, TimeoutError) as error:
            raise ConnectFailed(
                f"cannot connect to {target.origin}: {error or 'no answer'}",
                where=target.origin,
                way_out="Is it running, and is the address right?",
            ) from error
        return made, False

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            import httpx

            self._tls = httpx.create_ssl_context()
        return self._tls

    def give_back(self, origin: str, connection: _Connection) -> None:
        """Keep a connection for the next request, or close it."""
        idle = self._idle.setdefault(origin, [])
        if connection.keep_alive and connection.usable and len(idle) < _IDLE_CONNECTIONS:
            idle.append(connection)
        else:
            connection.close()

    async def close(self) -> None:
        """Close the idle connections."""
        for idle in self._idle.values():
            for connection in idle:
                with contextlib.suppress(RuntimeError):  # its loop may be gone
                    connection.close()
        self._idle = {}


def _host(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    default = 443 if target.scheme == "https" else 80
    return host if target.port == default else f"{host}:{target.port}"


def _clean(value: str) -> str:
    if "\r" in value or "\n" in value:
        raise errors.InputError("a header value has a line break in it", code="INP-161")
    return value


def _proxied(target: Target) -> bool:
    if target.host in ("127.0.0.1", "localhost", "::1"):
        return False
    found = urllib.request.getproxies()
    wanted = found.get(target.scheme) or found.get("all")
    return bool(wanted) and not urllib.request.proxy_bypass(f"{target.host}:{target.port}")
