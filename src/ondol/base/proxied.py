"""The same as `transport` through an HTTP proxy, by httpx: slower, and only used where a proxy is set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import httpx

from ondol.base import transport


class ProxiedResponse:
    """An answer that came through a proxy; has what `transport.Response` has."""

    def __init__(self, client: httpx.AsyncClient, response: httpx.Response, url: str) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self._client, self._response, self._url = client, response, url

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; raises as `transport.Response.chunks`."""
        try:
            async for chunk in self._response.aiter_bytes():
                yield chunk
        except httpx.TimeoutException as error:
            raise transport.TimedOut("no answer in time", where=self._url) from error
        except httpx.HTTPError as error:
            raise transport.Broken(f"stopped in the middle of its answer: {error}", where=self._url) from error
        finally:
            await self._client.aclose()

    async def read(self) -> bytes:
        """Return the whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    def aclose(self) -> None:
        """Nothing to do: the connection is not shared."""


async def send(method: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> ProxiedResponse:
    """Send one request through the proxy of the environment; raises as `transport.Client.post`."""
    client = httpx.AsyncClient(timeout=timeout)
    try:
        request = client.build_request(method, url, headers=dict(headers), content=body)
        return ProxiedResponse(client, await client.send(request, stream=True), url)
    except httpx.TimeoutException as error:
        await client.aclose()
        raise transport.TimedOut(f"no answer within {timeout:g} s", where=url) from error
    except httpx.HTTPError as error:
        await client.aclose()
        raise transport.ConnectFailed(f"cannot connect: {error}", where=url) from error
