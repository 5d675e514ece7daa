"""Where a drill plays: a copied project in a home of its own, its champion served, and an LLM that costs nothing.

Nothing here touches the project, its home or anybody's alert targets. Must not decide what a drill has shown.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ondol.app import listen, looping, supervisor
from ondol.app.rehearsal import disguise
from ondol.base import errors, hashing
from ondol.base.settings import PROJECT_FILE, Address, Settings
from ondol.formats import project as projects
from ondol.loop import reference, walking
from ondol.records.project import Project
from ondol.store import counters, releases, resources, routes
from ondol.store.blobs import Blobs
from ondol.store.connection import Store
from ondol.testing import mutants
from ondol.testing.fake_llm import FakeLLM, Reply
from ondol.testing.mutants import Mutation

_NOT_COPIED = (".ondol", ".git", ".venv", "__pycache__", "node_modules", ".*_cache")
_MOST_BYTES = 2_000_000_000
WINDOW = 4_000
"""The drift window of a drill is at most this, so that one is full within seconds."""

LLM_PRICE = {"input": 1.0, "output": 10.0}
LLM = "drill/expensive"


@dataclass(slots=True)
class Stage:
    """Everything a drill needs."""

    settings: Settings
    project: Project
    store: Store
    blobs: Blobs
    model: str
    original: str
    """Digest of the files of the project's champion."""

    champion: str
    """Digest of the release that serves in the drill: the same model, in the disguise of the mutants."""

    llm: FakeLLM


def check(settings: Settings, model: str) -> str:
    """Return the model to rehearse with: the named one, or the first that serves.

    :raises UnsupportedError: UNS-710 for an LLM application.
    :raises NotFoundError: NOF-451 when no model of the project serves with a reference.
    """
    project = projects.load(settings.project)
    if model in project.applications or (not model and project.applications and not project.models):
        named = model or next(iter(project.applications))
        raise errors.UnsupportedError(
            f"a rehearsal is played with a model, and {named!r} is an LLM application",
            where="ondol.yaml: applications",
            way_out=f"`ondol rollout start {named} RELEASE` tries a release on purpose.",
            code="UNS-710",
        )
    if model and model not in project.models:
        known = ", ".join(project.models) or "none"
        raise errors.NotFoundError(f"no model {model!r} in the project", way_out=f"There are: {known}.", code="NOF-011")
    with Store(settings.database) as store:
        names = [model] if model else list(project.models)
        for name in names:
            route = routes.get(store, name)
            if name in project.models and route and counters.fact(store, f"reference/{route.stable}"):
                return name
    raise errors.NotFoundError(
        f"no release of {model!r} with held-out rows serves yet" if model else "no model of the project serves yet",
        way_out=f"`ondol loop run {model or 'MODEL'}` makes a first release; the drill is played with it.",
        code="NOF-451",
    )


@contextlib.contextmanager
def opened(source: Settings, model: str, folder: Path) -> Iterator[Stage]:
    """Copy the project into a folder, serve its champion there, and stop everything afterwards."""
    project_folder = folder / "project"
    _copy_project(source.project, project_folder)
    home = project_folder / ".ondol"
    settings = replace(
        source, home=home, project=project_folder, database_url="", artifacts="", safe=False, grpc_at="off"
    )
    with contextlib.ExitStack() as stack:
        llm = stack.enter_context(FakeLLM([Reply("word " * 200)]))
        stack.enter_context(_environment({"DRILL_KEY": "none"}))
        _rewrite(project_folder / PROJECT_FILE, model, llm.url)
        store = stack.enter_context(Store(settings.database))
        blobs = Blobs(settings.blobs)
        original = _copy_champion(source, store, blobs, model)
        artifact = disguise.put(blobs, original, mutants.make(disguise.load(blobs, original), Mutation("none")))
        stack.callback(_end_walk, settings, model)
        control, data = (Address("127.0.0.1", listen.free_port()) for _ in range(2))  # the project may be started, too
        settings = replace(settings, control=control, data=data)
        stack.callback(supervisor.stop, settings)
        live = supervisor.ensure_running(settings)
        settings = replace(settings, control=live.control, data=live.data)
        champion = _serve(store, model, blobs.path(artifact))
        counters.put_fact(store, f"reference/{champion}", counters.fact(store, "drill/reference"))
        looping.wait_served(store, model, champion)
        yield Stage(settings, projects.load(project_folder), store, blobs, model, original, champion, llm)


def _copy_project(source: Path, target: Path) -> None:
    size = sum(path.stat().st_size for path in hashing.files_below(source) if ".ondol" not in path.parts)
    if size > _MOST_BYTES:
        raise errors.StateError(
            f"the project has {size / 1e9:.1f} GB, too much to copy for a drill",
            where=str(source),
            way_out="Keep large data outside of the project's folder.",
            code="STA-450",
        )
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_NOT_COPIED))


def _rewrite(path: Path, model: str, llm_url: str) -> None:
    """Keep what the loop of one model is judged by; nobody is alerted, and nothing waits for hours."""
    whole: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    spec = whole["models"][model]
    monitor = dict(spec.get("monitor") or {})
    monitor["window"] = min(int(monitor.get("window", WINDOW)), WINDOW)
    kept: dict[str, Any] = {name: whole[name] for name in ("name", "rollout", "images") if name in whole}
    kept["models"] = {model: {**spec, "monitor": monitor}}
    kept["retrain"] = {"on": ["drift"], "debounce": "0s", "cool_down": "0s"}
    kept["llms"] = {"drill": {"base_url": llm_url, "key": "${DRILL_KEY}"}}
    kept["prices"] = {LLM: LLM_PRICE}
    path.write_text(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _copy_champion(source: Settings, store: Store, blobs: Blobs, model: str) -> str:
    """Copy model files and reference of the release that serves; return the files' digest."""
    theirs = Blobs(source.blobs)
    with Store(source.database) as real:
        route = routes.get(real, model)
        assert route is not None  # `check` found it
        manifest = releases.model_manifest(releases.get(real, route.stable))
        kept = counters.fact(real, f"reference/{route.stable}")
        counters.put_fact(store, "drill/reference", blobs.put_bytes(theirs.get_bytes(kept)))
        return blobs.put_path(theirs.path(manifest.artifact))


def _serve(store: Store, model: str, files: Path) -> str:
    """Serve the champion with probabilities where it has them; return its release."""
    predictor = {
        "modelFormat": {"name": disguise.FORMAT},
        "storageUri": f"file://{files}",
        "env": [{"name": "PREDICT_PROBA", "value": "true"}],
    }
    resources.apply(
        store,
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": model},
            "spec": {"predictor": {"model": predictor}},
        },
    )
    from ondol.app.demo import trial

    if not trial.wait(lambda: routes.get(store, model) is not None, 60.0):
        raise errors.StateError(f"the champion of {model!r} was not served in the drill", code="STA-451")
    route = routes.get(store, model)
    assert route is not None
    return route.stable


def _end_walk(settings: Settings, model: str) -> None:
    """End a retraining that is still going on in the drill's home: its process outlives control."""
    pid = walking.walker(settings.home, model)
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def reference_rows(stage: Stage) -> Any:
    """Return the champion's held-out rows with its predictions, as a table."""
    found = reference.load(stage.store, stage.blobs, stage.champion)
    assert found is not None  # copied with the champion
    return found
