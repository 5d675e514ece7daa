"""The pages: one handler each, a query and a template."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from ondol.base import errors, hashing
from ondol.pipelines import page, runner, schedules
from ondol.records.kfp import RecurringRun
from ondol.rollout import standing
from ondol.store import kfp, loads, overview, registry_events, releases, rollouts, runs
from ondol.store.connection import Store
from ondol.ui import evidence, evidence_plots, plots
from ondol.ui.monitoring_pages import MonitoringPages
from ondol.ui.words import COOKIE, Words, wanted

_HERE = Path(__file__).parent
_LOG_BYTES = 200_000  # the end of a step's log is what one looks for
Context = dict[str, Any]
Page = Callable[[Request, Words], tuple[str, Context]]
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def ago(seconds: float) -> str:
    """Return how long ago a time is, short."""
    passed = max(0.0, time.time() - seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if passed >= size:
            return f"{passed / size:.0f} {unit}"
    return f"{passed:.0f} s"


def clock(seconds: float) -> str:
    """Return a time of this machine's day."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "–"


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        short=lambda digest: hashing.short(digest) if digest else "–",
        ago=ago,
        clock=clock,
        shown=evidence.shown,
        svg=Markup,  # drawn by `charts`, which escapes what it is given
    )
    return made


class Pages:
    """The handlers, over one store.

    :param home: where runs keep the pipeline they ran and what their steps made.
    """

    def __init__(self, store: Store, home: Path) -> None:
        self._store, self._home = store, home
        self._templates = _environment()

    def routes(self) -> list[BaseRoute]:
        """Return the routes of all pages."""
        pages: dict[str, Page] = {
            "/": self._overview,
            "/services": self._services,
            "/services/{name:path}": self._service,
            "/rollouts": self._rollouts,
            "/rollouts/{id}": self._rollout,
            "/decisions": self._decisions,
            "/decisions/{id}": self._decision,
            "/releases": self._releases,
            "/releases/{digest}": self._release,
            "/runs": self._runs,
            "/runs/{id}": self._run,
            "/runs/{id}/steps/{step:path}": self._step,
            "/history": self._history,
            **MonitoringPages(self._store).pages(),
        }
        found: list[BaseRoute] = [Route(path, self._page(page), methods=["GET"]) for path, page in pages.items()]
        return [*found, Mount("/ui", StaticFiles(directory=_HERE / "static"))]

    def _page(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def handler(request: Request) -> Response:
            return await run_in_threadpool(self._render, request, page)

        return handler

    async def missing(self, request: Request, _: Exception) -> Response:
        """Answer any other path: a page for people, a sentence for programs."""
        if "text/html" not in request.headers.get("accept", ""):
            return PlainTextResponse(f"nothing at {request.url.path}\n", 404)
        return await run_in_threadpool(self._render, request, _not_there)

    def _render(self, request: Request, page: Page) -> Response:
        asked = request.query_params.get("lang", "")
        accepted = request.headers.get("accept-language", "")
        words = Words(wanted(asked, request.cookies.get(COOKIE, ""), accepted))
        status = 200
        try:
            name, context = page(request, words)
        except errors.NotFoundError as error:
            name, context = "missing.html", {"message": error.message}
        status = 404 if name == "missing.html" else 200
        section = request.url.path.split("/")[1] or "overview"
        html = self._templates.get_template(name).render(
            t=words, lang=words.language, path=request.url.path, section=section, **context
        )
        response = HTMLResponse(html, status, _HEADERS)
        if asked:
            response.set_cookie(COOKIE, words.language, max_age=31_536_000, samesite="lax")
        return response

    def _overview(self, _: Request, __: Words) -> tuple[str, Context]:
        known = runs.every(self._store, limit=8)
        return "overview.html", {
            "views": overview.services(self._store),
            "progressing": rollouts.of_service(self._store, state="progressing"),
            "decisions": rollouts.decisions(self._store, limit=10),
            "runs": known,
        }

    def _services(self, _: Request, __: Words) -> tuple[str, Context]:
        return "services.html", {"views": overview.services(self._store)}

    def _service(self, request: Request, words: Words) -> tuple[str, Context]:
        name = request.path_params["name"]
        view = next((one for one in overview.services(self._store) if one.route.service == name), None)
        if view is None:
            raise errors.NotFoundError(f"no service {name!r}", code="NOF-030")
        return "service.html", {
            "view": view,
            "plots": plots.of_rollout(self._store, view.rollout, words) if view.rollout else [],
            "history": rollouts.of_service(self._store, name),
            "decisions": rollouts.decisions(self._store, subject=name, limit=50),
            "releases": releases.of_name(self._store, name),
        }

    def _rollouts(self, _: Request, __: Words) -> tuple[str, Context]:
        return "rollouts.html", {"rollouts": rollouts.of_service(self._store)}

    def _rollout(self, request: Request, words: Words) -> tuple[str, Context]:
        rollout = rollouts.get(self._store, request.path_params["id"])
        about = [
            one
            for one in rollouts.decisions(self._store, subject=rollout.service, limit=1000)
            if one.evidence.get("rollout") == rollout.id
        ]
        found = standing.of(self._store, rollout)
        return "rollout.html", {
            "rollout": rollout,
            "decisions": about,
            "findings": found.evidence.get("findings", []),
            "standing": found,
            "growth": evidence_plots.of_rollout(self._store, rollout, words),
            "plots": plots.of_rollout(self._store, rollout, words),
        }

    def _decisions(self, request: Request, __: Words) -> tuple[str, Context]:
        subject = request.query_params.get("subject", "")
        return "decisions.html", {"decisions": rollouts.decisions(self._store, subject, limit=300)}

    def _decision(self, request: Request, __: Words) -> tuple[str, Context]:
        decision = rollouts.decision(self._store, request.path_params["id"])
        return "decision.html", {
            "decision": decision,
            "findings": decision.evidence.get("findings") or [],
            "tables": evidence.tables(decision.evidence),
        }

    def _releases(self, _: Request, __: Words) -> tuple[str, Context]:
        serving = {view.route.stable: view.route.service for view in overview.services(self._store)}
        return "releases.html", {"releases": releases.of_name(self._store), "serving": serving}

    def _release(self, request: Request, __: Words) -> tuple[str, Context]:
        release = releases.get(self._store, request.path_params["digest"])
        return "release.html", {
            "release": release,
            "tables": evidence.tables(release.manifest),
            "loads": [one for one in loads.every(self._store, release.name) if one.release == release.digest],
        }

    def _runs(self, _: Request, __: Words) -> tuple[str, Context]:
        begun = {run.id for run in runs.headers(self._store)}
        asked = [one for one in kfp.unsettled(self._store) if one.id not in begun and one.wish == "run"]
        schedule = [
            (one, schedules.next_due(one) if one.enabled else None) for one in kfp.every(self._store, RecurringRun)
        ]
        return "runs.html", {"runs": runs.every(self._store, limit=200), "asked": asked, "schedules": schedule}

    def _run(self, request: Request, __: Words) -> tuple[str, Context]:
        run = runs.get(self._store, request.path_params["id"])
        with contextlib.suppress(errors.InputError):  # its folder was removed: the rest of the page is still true
            pipeline = runner.kept_pipeline(run, self._home)
            drawn = list(page.graphs(pipeline, run))
            artifacts = list(page.artifacts(run))
            return "run.html", {"run": run, "timeline": plots.of_run(run), "graphs": drawn, "artifacts": artifacts}
        return "run.html", {"run": run, "timeline": plots.of_run(run)}

    def _step(self, request: Request, __: Words) -> tuple[str, Context]:
        run = runs.get(self._store, request.path_params["id"])
        task = run.task(request.path_params["step"])
        if task is None:
            raise errors.NotFoundError(f"run {run.id!r} has no step {request.path_params['step']!r}", code="NOF-022")
        return "step.html", {"run": run, "task": task, "log": _end_of(Path(task.log_path)) if task.log_path else ""}

    def _history(self, _: Request, __: Words) -> tuple[str, Context]:
        return "history.html", {"events": registry_events.every(self._store)}


def _not_there(request: Request, __: Words) -> tuple[str, Context]:
    return "missing.html", {"message": request.url.path}


def _end_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
