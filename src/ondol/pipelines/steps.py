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

from ondol.base import errors, hashing
from ondol.formats.kfp_container import PythonCode
from ondol.formats.kfp_graph import Component, Importer
from ondol.pipelines import caching, values
from ondol.pipelines.workers import Worker, WorkerDied
from ondol.records.pipeline import Artifact
from ondol.store.blobs import Blobs


@dataclass(frozen=True, slots=True)
class Work:
    """Everything one attempt needs."""

    name: str
    """The task, `outer/inner` inside nested pipelines."""

    component: Component
    code: PythonCode
    parameters: dict[str, Any]
    artifacts: dict[str, tuple[Artifact, ...]]
    folder: Path
    origin: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt made, or what went wrong."""

    outputs: dict[str, Artifact] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    error: errors.ComponentError | None = None


def run(work: Work, worker: Callable[[], Worker], blobs: Blobs) -> Outcome:
    """Run one attempt to its end in a worker and collect what it made."""
    try:
        work.folder.mkdir(parents=True, exist_ok=True)
        (work.folder / "log.txt").touch()
        (work.folder / "job.json").write_text(json.dumps(_job(work), ensure_ascii=False), encoding="utf-8")
        code = worker().run(work.folder).result()
    except WorkerDied as error:
        words = str(error) or _tail(work.folder / "log.txt")
        way_out = "Run again with `--resume` to go on: finished steps are kept."
        return Outcome(error=_failed(work, "lost its worker process", way_out=way_out, details=words))
    except OSError as error:
        return Outcome(error=_failed(work, f"cannot be started: {error}", way_out="Free some disk space."))
    if code != 0:
        return Outcome(error=_raised(work, code))
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
    return {
        "task": work.name,
        "function": work.code.function,
        "source": work.code.source,
        "origin": work.origin,
        "env": work.code.env,
        "input": {"inputs": inputs, "outputs": outputs},
    }


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


def local_path(uri: str, where: str) -> Path:
    """Return the local path that an importer's address names.

    :raises UnsupportedError: for an address that is not on this machine.
    """
    scheme, separator, rest = uri.partition("://")
    if separator and scheme != "file":
        raise errors.UnsupportedError(
            f"the importer's address {uri!r} is not on this machine",
            where=where,
            way_out="Give a local path or file://…; other addresses need the pipeline to run on Kubeflow.",
        )
    return Path(rest if separator else uri).expanduser().absolute()


def imported(name: str, importer: Importer, uri: str, metadata: dict[str, Any]) -> Artifact:
    """Return the artifact at an importer's address, with the digest of its content.

    :raises InputError: when there is nothing.
    """
    path = local_path(uri, f"importer {name!r}")
    if not path.exists():
        raise errors.InputError(
            f"nothing to import at {uri!r}",
            where=f"importer {name!r}",
            way_out=f"Looked at {path}.",
            code="INP-017",
        )
    return Artifact(
        "artifact",
        importer.type,
        str(path),
        str(path),
        hashing.of_tree(path),
        metadata,
        importer.version,
        caching.stamp(path),
    )
