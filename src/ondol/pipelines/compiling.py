"""From a pipeline file to typed records: compiled once per content by the user's own kfp, in a child process.

Must not import kfp: a second run of the same file reads what the first compilation gave, and starts no process.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ondol.base import errors, hashing
from ondol.formats import kfp_ir
from ondol.formats.kfp_graph import Pipeline
from ondol.store import runs
from ondol.store.connection import Store

_CHILD = Path(__file__).with_name("compile_child.py")


@dataclass(frozen=True, slots=True)
class Compiled:
    """A pipeline ready to run."""

    pipeline: Pipeline
    text: str
    """The compiled form as YAML."""

    digest: str
    """Digest of the text."""

    source: Path
    origins: dict[str, tuple[str, int]] = field(default_factory=dict)
    """sha256 of a component's embedded source -> the user's file and the function's first line."""

    fresh: bool = True
    """Compiled now, not remembered."""

    def spec(self) -> dict[str, Any]:
        """Return the IR as KFP's API has it: alone, or together with what is said for the platform."""
        documents = kfp_ir.documents(self.text, str(self.source))
        if len(documents) == 1:
            return dict(documents[0])
        return {"pipeline_spec": documents[0], "platform_spec": documents[1]}


class SeveralPipelines(errors.UsageError):
    """A file has several pipelines, and none was chosen."""

    def __init__(self, source: Path, names: tuple[str, ...]) -> None:
        super().__init__(
            f"the file has {len(names)} pipelines: {', '.join(names)}",
            where=str(source),
            way_out=f"Say which: --pipeline {names[0]}",
            code="USE-010",
        )
        self.names = names


def load(source: Path, store: Store, pipeline: str = "") -> Compiled:
    """Read a compiled pipeline, or compile a Python file.

    :param source: a `.py` file with a `@dsl.pipeline`, or a `.yaml`/`.yml`/`.json` of kfp's compiler.
    :param pipeline: which one, when the file has several: the function's or the pipeline's name.
    :raises InputError: when the file cannot be read or does not compile, with file and line.
    :raises UnsupportedError: naming what this machine cannot honour.
    :raises DependencyError: when a Python file is given and kfp is not installed.
    """
    source = Path(source)
    if not source.is_file():
        raise errors.InputError(
            f"no pipeline file {str(source)!r}", way_out="Give the path of a .py or a compiled .yaml.", code="INP-010"
        )
    if source.suffix == ".py":
        return _python(source.resolve(), store, pipeline)
    if source.suffix not in (".yaml", ".yml", ".json"):
        raise errors.InputError(
            f"{source.name!r} is not a pipeline file",
            where=str(source),
            way_out="Give a .py with a @dsl.pipeline, or the .yaml that kfp's compiler wrote.",
            code="INP-010",
        )
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InputError(f"cannot read the file: {error}", where=str(source), code="INP-010") from error
    return _finished(text, source.resolve(), {}, fresh=False)


def from_text(text: str, source: Path) -> Compiled:
    """Return a pipeline from its compiled text, kept with a run."""
    return _finished(text, source, {}, fresh=False)


def _finished(text: str, source: Path, origins: Mapping[str, Any], *, fresh: bool) -> Compiled:
    try:
        docs = [json.loads(text)] if text.lstrip().startswith("{") else kfp_ir.documents(text, str(source))
    except json.JSONDecodeError:
        docs = kfp_ir.documents(text, str(source))
    pipeline = kfp_ir.parse(docs, str(source))
    places = {key: (str(place[0]), int(place[1])) for key, place in origins.items()}
    return Compiled(pipeline, text, hashing.of_bytes(text.encode()), source, places, fresh)


def _python(source: Path, store: Store, pipeline: str) -> Compiled:
    try:
        version = metadata.version("kfp")
    except metadata.PackageNotFoundError:
        raise errors.DependencyError(
            "compiling a pipeline's .py needs kfp",
            where=str(source),
            way_out="pip install kfp, or give the compiled .yaml.",
            code="DEP-010",
        ) from None
    key = hashing.of_json([str(source), hashing.of_file(source), pipeline, version, sys.version])
    known = runs.compiled(store, key)
    if known is not None and _still_holds(known):
        return _finished(known["ir"], source, known["origins"], fresh=False)
    answer = _run_child(source, pipeline)
    if "error" in answer:
        raise _explained(answer["error"], source, pipeline)
    docs = kfp_ir.documents(answer["ir"], str(source))
    # JSON is read ten times faster than YAML; two documents stay YAML.
    answer["ir"] = json.dumps(docs[0], ensure_ascii=False) if len(docs) == 1 else answer["ir"]
    finished = _finished(answer["ir"], source, answer["origins"], fresh=True)
    runs.put_compiled(store, key, answer)
    return finished


def _still_holds(known: Mapping[str, Any]) -> bool:
    """Whether every file and variable that the compilation looked at is as it was."""
    for name, digest in known["files"].items():
        try:
            if hashlib.sha256(Path(name).read_bytes()).hexdigest() != digest:
                return False
        except OSError:
            return False
    return all(os.environ.get(name) == value for name, value in known["environ"].items())


def _run_child(source: Path, pipeline: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ondol-compile-") as folder:
        out = Path(folder) / "answer.json"
        child = subprocess.run(
            [sys.executable, "-P", "-W", "ignore::FutureWarning", str(_CHILD), str(source), str(out), pipeline],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if child.returncode != 0 or not out.is_file():
            raise errors.InputError(
                f"the pipeline file ended its interpreter (exit code {child.returncode})",
                where=str(source),
                way_out=f"It said: {(child.stderr or child.stdout).strip()[-500:]!r}",
                code="INP-012",
            )
        return dict(json.loads(out.read_text(encoding="utf-8")))


def _explained(error: Mapping[str, Any], source: Path, pipeline: str) -> errors.OndolError:
    if error["kind"] == "choice":
        return _no_choice(error["pipelines"], source, pipeline)
    where = f"{error['file']}:{error['line']}" if error["line"] else str(error["file"])
    if "Constant argument inputs" in error["message"] and "PipelineTask object" in error["message"]:
        return _task_given_as_value(Path(error["file"]), int(error["line"]), where)
    if error["kind"] == "ModuleNotFoundError":
        return errors.InputError(
            f"the pipeline file imports {error['module']!r}, which is not installed here",
            where=where,
            way_out=f"Install it where Ondol runs, or import it inside the component (file {source.name}).",
            code="INP-012",
        )
    return errors.InputError(
        f"the pipeline does not compile: {error['kind']}: {error['message']}",
        where=where,
        way_out="The message is kfp's or the file's own; correct the file and run again.",
        code="INP-012",
    )


def _no_choice(pipelines: Mapping[str, str], source: Path, pipeline: str) -> errors.OndolError:
    names = ", ".join(pipelines)
    if not pipelines:
        return errors.InputError(
            "the file has no @dsl.pipeline", where=str(source), way_out="Decorate one function with it.", code="INP-013"
        )
    if pipeline:
        return errors.InputError(
            f"no pipeline {pipeline!r} in the file", where=str(source), way_out=f"It has: {names}.", code="INP-013"
        )
    return SeveralPipelines(source, tuple(pipelines))


def _task_given_as_value(file: Path, line: int, where: str) -> errors.OndolError:
    """Explain kfp's message about a PipelineTask: what is missing is `.output`, and where."""
    for call, name in _argument_calls(file, line):
        text = ast.unparse(call.func)
        if text.split(".")[-1] == "importer":
            return errors.InputError(
                f"`{text}(…)` gives a task, but the argument {name!r} needs the artifact it imports",
                where=f"{file}:{call.end_lineno}",
                way_out=f"Write `.output` behind it: `{name}={text}(…).output`. kfp itself demands this.",
                code="INP-011",
            )
    return errors.InputError(
        "a task is given where a value or an artifact is needed",
        where=where,
        way_out="Write `.output` (or `.outputs['name']`) behind the task that is passed on.",
        code="INP-011",
    )


def _argument_calls(file: Path, line: int) -> list[tuple[ast.Call, str]]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.lineno <= line <= (node.end_lineno or node.lineno):
            found += [(word.value, word.arg or "") for word in node.keywords if isinstance(word.value, ast.Call)]
    return found
