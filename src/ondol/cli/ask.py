"""`ondol ask`: a question to an application, in the terminal."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import click

from ondol.base import errors, settings
from ondol.cli import context, output
from ondol.store.connection import Store


@click.command(
    epilog="""\b
Examples:
  ondol ask assistant "API 인증 방법은?"
  ondol ask assistant "How do I roll back?" --json
  echo "How do I roll back?" | ondol ask assistant -"""
)
@click.argument("application")
@click.argument("question")
@click.option("--unit", default="", help="Who asks: decides the canary's arm and whose cost it is. Default: $USER.")
@click.option("--stream/--no-stream", default=True, help="Show the answer as it is written.")
@output.json_option
def command(application: str, question: str, unit: str, stream: bool, as_json: bool) -> None:
    """Ask an LLM application a question; `-` reads it from standard input.

    Uses the running data plane; when none runs, the application is opened in this process, and that is said.
    """
    chosen = context.load_settings()
    if question == "-":
        question = sys.stdin.read()
    who = unit or os.environ.get("USER", "")
    answered = _from_data_plane(chosen, application, question, who, stream and not as_json)
    if answered is None:
        if not as_json:
            print("(no data plane runs: answering in this process)", file=sys.stderr)
        answered = _in_process(chosen, application, question, who, stream and not as_json)
    output.emit(answered, as_json, lambda: _show(answered, streamed=stream))


def _show(answered: dict[str, Any], streamed: bool) -> None:
    if not streamed:
        print(answered["answer"])
    print()
    for one in answered["citations"]:
        print(f"  [{one['number']}] {one['title'] or one['document']}  ({one['document']})")
    cost = "?" if answered["cost_usd"] is None else f"${answered['cost_usd']:.6f}"
    notes = [answered["answerer"], f"{cost} {answered['cost_status']}", f"trace {answered['trace'][:12]}"]
    if answered["blocked_by"]:
        notes.insert(0, f"blocked by {answered['blocked_by']}")
    print(f"  -- {', '.join(notes)}")
    if answered["degraded"]:
        print(f"  -- degraded: {answered['degraded']}")


def _piece(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _from_data_plane(
    chosen: settings.Settings, application: str, question: str, unit: str, stream: bool
) -> dict[str, Any] | None:
    """Return the answer of the running data plane; None when none listens, or it is not this home's."""
    import httpx
    import msgspec

    body: dict[str, Any] = {"model": application, "messages": [{"role": "user", "content": question}], "stream": stream}
    if unit:
        body["user"] = unit  # not a header: a name may be in any script
    headers: dict[str, str] = {}
    if chosen.api_key:
        headers["authorization"] = f"Bearer {chosen.api_key}"
    address = _address(chosen)
    if not address:
        return None
    url = f"{address}/openai/v1/chat/completions"
    text: list[str] = []
    details: dict[str, Any] = {}
    try:
        with httpx.stream("POST", url, json=body, headers=headers, timeout=httpx.Timeout(300, connect=2)) as response:
            if response.status_code >= 400:
                _refused(response, application)
            if not stream:
                whole = msgspec.json.decode(response.read())
                return {"answer": whole["choices"][0]["message"]["content"], **whole["ondol"]}
            for line in response.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = msgspec.json.decode(line[6:])
                if "error" in event:
                    raise errors.UpstreamError(event["error"]["message"], code=str(event["error"].get("code") or ""))
                piece = event["choices"][0]["delta"].get("content") or "" if event["choices"] else ""
                text.append(piece)
                _piece(piece)
                details = event.get("ondol") or details
    except httpx.ConnectError:
        return None
    except httpx.HTTPError as error:
        raise errors.UpstreamError(f"the data plane broke off: {error}", where=url, code="UPS-163") from error
    return {"answer": "".join(text), **details}


def _address(chosen: settings.Settings) -> str:
    """Return where this home's data plane listens; empty when this home runs none (another's is not asked)."""
    from ondol.app import running

    found = running.find(chosen.home)
    return found.data.url if found is not None else ""


def _refused(response: Any, application: str) -> None:
    import msgspec

    try:
        error = msgspec.json.decode(response.read())["error"]
        message, code = str(error["message"]), str(error.get("code") or "")
    except (msgspec.DecodeError, KeyError, TypeError):
        message, code = f"the data plane answered {response.status_code}", ""
    if code == "model_not_found":
        raise errors.NotFoundError(
            f"no application {application!r}",
            way_out="It must be in ondol.yaml and released: `ondol release list` shows what is.",
            code="NOF-166",
        )
    raise errors.OndolError(message, code=code)


def _in_process(chosen: settings.Settings, application: str, question: str, unit: str, stream: bool) -> dict[str, Any]:
    with context.open_store(chosen) as store:
        return asyncio.run(_ask(store, chosen, application, question, unit, stream))


async def _ask(
    store: Store, chosen: settings.Settings, application: str, question: str, unit: str, stream: bool
) -> dict[str, Any]:
    from ondol.api.openai import application_chat, wiring
    from ondol.base import telemetry
    from ondol.records.chat import Answered
    from ondol.serving.applications import Ask

    services = wiring.Services(store, chosen)
    services.start()
    try:
        opened = services.opener.open(_release(store, chosen, services, application))
        attributes = {"ondol.root": True, "ondol.application": application, "ondol.release": opened.parts.release}
        span = telemetry.start(services.spans, f"ask {application}", {**attributes, "ondol.unit": unit})
        answered: Answered | None = None
        try:
            async for piece in opened.stream(Ask(question, unit=unit), span):
                if isinstance(piece, Answered):
                    answered = piece
                elif stream:
                    _piece(piece)
        except errors.OndolError as error:
            span.error = error.message
            raise
        finally:
            span.finish()
        assert answered is not None  # a stream ends with it
        return {"answer": answered.text, **application_chat.described(answered)}
    finally:
        await services.stop()


def _release(store: Store, chosen: settings.Settings, services: Any, application: str) -> Any:
    """Return the release that the route names; without a route, the application as it is now."""
    from ondol.serving import application_release
    from ondol.store import releases, routes

    route = routes.get(store, application)
    if route is not None and route.kind == "application":
        return releases.get(store, route.stable)
    spec = services.project.applications.get(application)
    if spec is None:
        known = ", ".join(services.project.applications) or "none"
        raise errors.NotFoundError(
            f"no application {application!r}", where="ondol.yaml", way_out=f"There are: {known}.", code="NOF-166"
        )
    return application_release.build_release(store, chosen, application, spec, services.project.llms)
