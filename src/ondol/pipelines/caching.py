"""What a step's outcome depends on, and whether a remembered outcome still holds.

The key covers the component's code, its parameters, the *content* of its input artifacts and its environment: never
a path alone. Must not run anything.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ondol.base import hashing
from ondol.formats.kfp_container import Code, PythonCode
from ondol.formats.kfp_graph import Component
from ondol.records.pipeline import Artifact, TaskRun
from ondol.store import runs
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

_FORMAT = 1  # grows when outcomes of older versions must not be reused


def ingredients(
    component: Component,
    code: Code,
    parameters: Mapping[str, Any],
    artifacts: Mapping[str, tuple[Artifact, ...]],
    environment: str,
    key: str = "",
) -> dict[str, Any]:
    """Return everything the outcome of a step depends on, by name, so that a change can be told.

    :param environment: the identity of its environment, and of what its image means here.
    :param key: the user's own cache key; it then stands for everything but the names and types of the outputs.
    """
    outputs = {
        "parameters": {name: slot.type for name, slot in component.output_parameters.items()},
        "artifacts": {name: slot.type for name, slot in component.output_artifacts.items()},
    }
    if key:
        own = hashing.of_json({"key": key, "outputs": outputs})
        return {"format": _FORMAT, "code": own, "environment": "", "parameters": {}, "inputs": {}}
    body: dict[str, Any] = {"env": code.env, "outputs": outputs}
    if isinstance(code, PythonCode):
        body |= {"source": code.source, "function": code.function}
    else:
        body |= {"command": code.command, "image": code.image}
    return {
        "format": _FORMAT,
        "code": hashing.of_json(body),
        "environment": environment,
        "parameters": {name: _finite(value) for name, value in parameters.items()},
        "inputs": {name: [_content(one) for one in many] for name, many in artifacts.items()},
    }


def _content(artifact: Artifact) -> str:
    # Without content on this machine, an address elsewhere is all there is to tell two artifacts apart.
    elsewhere = artifact.uri if not artifact.digest and "://" in artifact.uri else ""
    return hashing.of_json([artifact.digest, artifact.type, _finite(artifact.metadata), elsewhere])


def _finite(value: Any) -> Any:
    """Write what JSON cannot say (NaN, infinity) and what it confuses (1 and 1.0) as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return value


def key_of(parts: Mapping[str, Any]) -> str:
    """Return the cache key."""
    return hashing.of_json(parts)


def difference(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    """Say in one line why there is no remembered outcome: what is new since the last one."""
    if before is None:
        return "it has not run before"
    if now["code"] != before["code"]:
        return "its code changed"
    for kind, said in (("parameters", "parameter"), ("inputs", "input")):
        for name in sorted({*now[kind], *before[kind]}):
            new, old = now[kind].get(name), before[kind].get(name)
            if new != old:
                return f"{said} {name!r} changed" + (f" from {old!r} to {new!r}" if kind == "parameters" else "")
    if now["environment"] != before["environment"]:
        return "its environment changed"
    return "its outcome is not kept any more"


def stamp(path: Path) -> str:
    """Return size and time of a file, or of all files of a folder: unchanged means the content is."""
    try:
        if path.is_dir():
            files = {str(file.relative_to(path)): stamp(file) for file in hashing.files_below(path)}
            return hashing.short(hashing.of_json(files), 24)
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"


def find(store: Store, blobs: Blobs, key: str, folder: Path) -> TaskRun | None:
    """Return the remembered outcome of a step when all it made is still there, unchanged.

    :param folder: gets copies of artifacts whose files were changed or removed since.
    """
    known = runs.cached(store, key)
    if known is None:
        return None
    outputs = restored(known[1].outputs, blobs, folder)
    if outputs is None:
        runs.forget_cached(store, key)
        return None
    return replace(known[1], outputs=outputs)


def restored(outputs: Mapping[str, Artifact], blobs: Blobs, folder: Path) -> dict[str, Artifact] | None:
    """Return artifacts whose files are as they were made, bringing them back from the blobs; None when impossible."""
    found = {}
    for name, artifact in outputs.items():
        path = Path(artifact.path)
        if not artifact.digest or (artifact.stamp and stamp(path) == artifact.stamp):
            found[name] = artifact
        elif path.exists() and hashing.of_tree(path) == artifact.digest:
            found[name] = replace(artifact, stamp=stamp(path))
        elif blobs.has(artifact.digest):
            found[name] = _bring_back(artifact, blobs.path(artifact.digest), folder / name)
        else:
            return None
    return found


def _bring_back(artifact: Artifact, blob: Path, target: Path) -> Artifact:
    target.parent.mkdir(parents=True, exist_ok=True)
    if blob.is_dir():
        shutil.copytree(blob, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(blob, target)
    return replace(artifact, path=str(target), uri=str(target), stamp=stamp(target))
