"""One attempt of one step: what the worker is told, what it left behind, what went wrong.

Must not decide what runs next.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondol.base import errors
from ondol.formats.kfp_container import Code, PythonCode
from ondol.formats.kfp_graph import Component
from ondol.pipelines import caching, containers, values
from ondol.pipelines.surroundings import Surroundings
from ondol.pipelines.workers import Terminal, Worker, WorkerDied
from ondol.records.pipeline import Artifact
from ondol.records.project import ImageSpec
from ondol.store.blobs import Blobs


@dataclass(frozen=True, slots=True)
class Work:
    """Everything one attempt needs."""

    name: str
    """The task, `outer/inner` inside nested pipelines."""

    component: Component
    code: Code
    parameters: dict[str, Any]
    artifacts: dict[str, tuple[Artifact, ...]]
    folder: Path
    origin: tuple[str, int] | None = None
    image: ImageSpec = field(default_factory=ImageSpec)
    """What a container component's image means here."""

    programs: str = ""
    """Folder of the programs that its command finds first; empty: the running Python's."""

    cwd: str = ""
    """Where its command runs; empty: where Ondol does."""

    facts: Mapping[str, str] = field(default_factory=dict)
    surroundings: Surroundings = field(default_factory=Surroundings)
    memory: int = 0
    """Bytes; 0: any."""

    seconds: float = 0.0
    """How long the attempt may take; 0: any."""

    environ: Mapping[str, str] = field(default_factory=dict)
    """Variables beside those of the file; nothing secret."""

    shared: bool = False
    """Run in a process that runs other steps before and after it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt made, or what went wrong."""

    outputs: dict[str, Artifact] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    error: errors.ComponentError | None = None
    lost: bool = False
    """Somebody killed the worker that it ran in: the step itself has done nothing wrong."""


def needs_a_process(work: Work, attempt: int) -> str:
    """Say why an attempt must not share a process with other steps; empty when it may."""
    reasons = {
        "it is a command": not isinstance(work.code, PythonCode),
        "it has a memory limit": bool(work.memory),
        "it has a deadline": bool(work.seconds),
        "it is given secrets or settings": bool(work.surroundings.environ),
        "it mounts a folder": bool(work.surroundings.places),
        "it was tried before": attempt > 1,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def run(work: Work, worker: Callable[[], Worker | Terminal], blobs: Blobs) -> Outcome:
    """Run one attempt to its end in a worker and collect what it made."""
    try:
        work.folder.mkdir(parents=True, exist_ok=True)
        end = worker().run(work.folder, _request(work)).result()
    except WorkerDied as died:
        words = str(died) or _tail(work.folder / "log.txt")
        way_out = "Run again with `--resume` to go on: finished steps are kept."
        error = _failed(work, "lost its worker process", way_out=way_out, details=words)
        return Outcome(error=error, lost=died.killed)
    except OSError as error:
        return Outcome(error=_failed(work, f"cannot be started: {error}", way_out="Free some disk space."))
    except errors.InputError as error:
        return Outcome(error=_failed(work, error.message, where=error.where, way_out=error.way_out))
    if end.why:
        return Outcome(error=_stopped(work, end.why))
    if end.code != 0:
        return Outcome(error=_raised(work, end.code))
    try:
        return _collect(work, blobs)
    except errors.ComponentError as error:
        return Outcome(error=error)
    except errors.OndolError as error:
        return Outcome(error=_failed(work, error.message, way_out=error.way_out))


def _job(work: Work) -> dict[str, Any]:
    outputs: dict[str, Any] = {"outputFile": str(work.folder / "executor_output.json")}
    if work.component.output_parameters:
        outputs["parameters"] = {
            name: {"outputFile": str(work.folder / "parameters" / name)} for name in work.component.output_parameters
        }
    if work.component.output_artifacts:
        outputs["artifacts"] = {
            name: {
                "artifacts": [_runtime(Artifact(name, slot.type, str(work.folder / name), "", version=slot.version))]
            }
            for name, slot in work.component.output_artifacts.items()
        }
    inputs: dict[str, Any] = {}
    if work.parameters:
        inputs["parameterValues"] = work.parameters
    if work.artifacts:
        inputs["artifacts"] = {
            name: {"artifacts": [_runtime(one) for one in many]} for name, many in work.artifacts.items()
        }
    given = {"inputs": inputs, "outputs": outputs}
    job: dict[str, Any] = {"task": work.name, "env": {**work.code.env, **work.environ}, "input": given}
    if isinstance(work.code, PythonCode):
        return {**job, "function": work.code.function, "source": work.code.source, "origin": work.origin}
    for folder in {work.folder, work.folder / "parameters"} if work.component.output_parameters else ():
        folder.mkdir(exist_ok=True)
    words = containers.command(work.component, work.code, work.image, given, work.facts)
    if not words:
        raise errors.InputError(
            f"image {work.code.image!r}: the file gives no command, and the image's own is not known here",
            where=work.code.where,
            way_out="Say it in ondol.yaml: images: {…: {command: […]}}.",
            code="INP-504",
        )
    return {**job, "command": words, "programs": work.programs, "cwd": work.cwd}


def _request(work: Work) -> dict[str, Any]:
    """Return what the worker is told; it is written nowhere, for secrets are in it."""
    request: dict[str, Any] = {"job": _job(work)}
    if work.surroundings.environ:
        request["env"] = work.surroundings.environ
    if work.surroundings.places:
        places = work.surroundings.places
        request["mounts"] = [[place.source, place.target, place.read_only] for place in places]
    if work.memory:
        request["memory"] = work.memory
    if work.seconds:
        request["seconds"] = work.seconds
    if work.shared:
        request["shared"] = True
    return request


def _runtime(artifact: Artifact) -> dict[str, Any]:
    return {
        "name": artifact.name,
        "uri": artifact.uri,
        "type": {"schemaTitle": artifact.type, "schemaVersion": artifact.version},
        "metadata": artifact.metadata,
    }


def _collect(work: Work, blobs: Blobs) -> Outcome:
    answer: dict[str, Any] = {}
    answer_path = work.folder / "executor_output.json"
    if answer_path.is_file():
        answer = json.loads(answer_path.read_text(encoding="utf-8"))
    given = answer.get("parameterValues", {})
    parameters = {}
    for name, slot in work.component.output_parameters.items():
        path = work.folder / "parameters" / name
        if name in given:
            parameters[name] = given[name]
        elif path.is_file():
            text = path.read_text(encoding="utf-8")
            parameters[name] = values.from_text(text, slot.type, f"output parameter {name!r} of {work.name!r}")
    outputs = {}
    for name, place in work.component.output_artifacts.items():
        left = (answer.get("artifacts", {}).get(name, {}).get("artifacts") or [{}])[0]
        uri = str(left.get("uri") or work.folder / name)
        path = Path(uri.removeprefix("file://"))
        if left.get("custom_path"):
            _bring_in(Path(left["custom_path"]), path)
        digest = blobs.put_path(path) if path.exists() else ""
        outputs[name] = Artifact(
            name, place.type, uri, str(path), digest, left.get("metadata") or {}, place.version, caching.stamp(path)
        )
    return Outcome(outputs, parameters)


def _bring_in(made: Path, path: Path) -> None:
    """Copy what a component wrote to a path of its own (`set_path`) to the artifact's: others may write there too."""
    if made.is_dir():
        shutil.copytree(made, path, dirs_exist_ok=True)
    elif made.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, path)


def _raised(work: Work, code: int) -> errors.ComponentError:
    try:
        report: Mapping[str, Any] = json.loads((work.folder / "error.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return _died(work, code)
    way_out = f"The whole log: {work.folder / 'log.txt'}. Correct the component and run again: finished steps are kept."
    if report.get("module"):
        way_out = (
            f"A component has only its own packages: add the package of {report['module']!r} to packages_to_install."
        )
    message = f"{report['type']}: {report['message']}" if report["message"] else str(report["type"])
    return _failed(work, f"failed: {message}", where=report["where"], way_out=way_out, details=report["trace"])


def _stopped(work: Work, why: str) -> errors.ComponentError:
    """Say that the worker ended a step, and why."""
    if why == "memory":
        reason = f"was stopped: its processes held more than its memory limit of {work.memory} bytes"
        way_out = "Raise set_memory_limit, or leave it out."
    elif why == "time":
        reason = f"was stopped: it took longer than its deadline of {work.seconds:g} s"
        way_out = "Raise kubernetes.set_timeout, or leave it out."
    elif why == "debugger":
        reason = "was left in the debugger before its function returned: nothing that it made is kept"
        way_out = "Let it go on with `c` there, or run without --debug: finished steps are kept."
    else:
        reason, way_out = why, "Run the step's pipeline on Kubeflow, or leave the mount out."
    return _failed(work, reason, way_out=way_out, details=_tail(work.folder / "log.txt"))


def _died(work: Work, code: int) -> errors.ComponentError:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        reason = f"its process was killed by {name}"
        way_out = "SIGKILL without anybody's hand is usually memory running out; run again with `--resume` to go on."
    else:
        reason, way_out = f"its process ended with exit code {code}", "See the log; run again with `--resume` to go on."
    return _failed(work, reason, way_out=way_out, details=_tail(work.folder / "log.txt"))


def _tail(path: Path) -> str:
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
    except OSError:
        return ""


def _failed(work: Work, reason: str, *, where: str = "", way_out: str = "", details: str = "") -> errors.ComponentError:
    return errors.ComponentError(
        f"step {work.name!r} {reason}",
        where=where or str(work.folder / "log.txt"),
        way_out=way_out,
        details=details,
        code="RUN-010",
    )
