"""A program of its own: load the user's pipeline file with the user's kfp and write what it compiles to.

    python -P compile_child.py FILE OUT [NAME]

OUT gets JSON: `{"ir": …, "origins": …, "files": […], "environ": {…}}` or `{"error": …}`. This is one of the two places
that import kfp; it must not import anything of Ondol's, for it runs in whatever environment has the user's kfp.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

_TEMPORARY = Path(tempfile.gettempdir()).resolve()
_SUBMITTERS = ("compile", "create_run_from_pipeline_func", "upload_pipeline_from_pipeline_func")


def _own_file(name: str) -> bool:
    """Whether a file is the user's: not Python's, not an installed package's, not the system's."""
    roots = (sys.prefix, sys.base_prefix, sys.exec_prefix, "/proc", "/dev", "/sys", "/etc", "/usr")
    return not any(name == root or name.startswith(root + os.sep) for root in roots) and "site-packages" not in name


class FilesRead:
    """Remembers the user's files that were opened for reading: their content decides whether a compilation holds."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.active = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active or event != "open" or not isinstance(arguments[0], (str, os.PathLike)):
            return
        if "r" in str(arguments[1] or "r"):
            name = os.path.realpath(arguments[0])
            if _own_file(name) and not name.endswith(".pyc"):
                self.names.add(name)


class RecordedEnvironment(os._Environ):  # type: ignore[type-arg]
    """The environment, remembering what the pipeline file asked it for."""

    asked: dict[str, str | None] = {}  # noqa: RUF012 - one environment per process

    def __getitem__(self, key: str) -> str:
        try:
            value = super().__getitem__(key)
        except KeyError:
            self.asked.setdefault(key, None)
            raise
        self.asked.setdefault(key, value)
        return str(value)


def load(path: Path) -> tuple[ModuleType, list[Any]]:
    """Run the file as a module; return it and the pipelines it compiles by itself.

    Writing them is left out, but for temporary files: those the file itself reads back, as parts of its pipeline.
    """
    from kfp import compiler

    compiled: list[Any] = []

    original = compiler.Compiler.compile

    def remember(own: Any, pipeline_func: Any, package_path: Any, *more: Any, **options: Any) -> None:
        if _is_temporary(package_path, path):
            original(own, pipeline_func, package_path, *more, **options)
        else:
            compiled.append(pipeline_func)

    compiler.Compiler.compile = remember
    try:
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    finally:
        compiler.Compiler.compile = original
    return module, compiled


def _is_temporary(target: Any, path: Path) -> bool:
    """Whether a file is in the folder for temporary files, and not beside or below the pipeline file's own."""
    place = Path(target).resolve().parent
    owned = any(
        place == own or (_TEMPORARY in own.parents and own in place.parents)
        for own in (path.resolve().parent, Path.cwd())
    )
    return place.is_relative_to(_TEMPORARY) and not owned


def pipelines_of(module: ModuleType, compiled: list[Any]) -> dict[str, Any]:
    """Return the pipelines of a module by the name of their function; without any, its components.

    kfp compiles a single component to a pipeline of one step.
    """
    from kfp.dsl.base_component import BaseComponent
    from kfp.dsl.graph_component import GraphComponent

    found = {name: value for name, value in vars(module).items() if isinstance(value, GraphComponent)}
    for value in compiled:
        if isinstance(value, GraphComponent) and value not in found.values():
            found[value.pipeline_func.__name__] = value
    if found:
        return found
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, BaseComponent) and _home_of(value) in ("", module.__name__)
    }


def _home_of(component: Any) -> str:
    """Return the module whose function a component is; empty for one that was loaded from a text."""
    function = getattr(component, "python_func", None) or getattr(component, "pipeline_func", None)
    return str(getattr(function, "__module__", ""))


def own_choice(path: Path) -> set[str]:
    """Return the names that the file itself compiles or submits when it is run as a program."""
    names = set()
    for block in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(block, ast.If) or "__name__" not in ast.unparse(block.test):
            continue
        for call in ast.walk(block):
            if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] in _SUBMITTERS:
                given = [*call.args[:1], *(word.value for word in call.keywords if word.arg == "pipeline_func")]
                names |= {value.id for value in given if isinstance(value, ast.Name)}
    return names


def outermost(found: dict[str, Any]) -> list[Any]:
    """Return the pipelines that no other one of the file contains."""
    inside = {key for value in found.values() for key in value.pipeline_spec.components}
    return [value for value in found.values() if f"comp-{value.name}" not in inside]


def choose(found: dict[str, Any], compiled: list[Any], name: str, path: Path) -> Any:
    """Return the pipeline that is meant, or None when that is not clear.

    It is the one of the given name, the only one, the one that the file compiles when imported or when run as a
    program, or the only one that is not part of another.
    """
    if name:
        named = [value for key, value in found.items() if name in (key, value.pipeline_spec.pipeline_info.name)]
        return named[0] if named else None
    if len(found) == 1:
        return next(iter(found.values()))
    chosen = own_choice(path)
    for own in (
        [value for value in found.values() if value in compiled],
        [value for key, value in found.items() if key in chosen],
        outermost(found),
    ):
        if len(own) == 1:
            return own[0]
    return None


def origins() -> dict[str, list[Any]]:
    """Return for each component's embedded source (its digest) the file and line of the user's function."""
    import gc

    from kfp.dsl.python_component import PythonComponent

    found: dict[str, list[Any]] = {}
    for thing in gc.get_objects():
        if isinstance(thing, PythonComponent):
            container = thing.component_spec.implementation.container
            source = (container.command or [""])[-1] if container else ""
            code = thing.python_func.__code__
            found[hashlib.sha256(source.encode()).hexdigest()] = [
                os.path.realpath(code.co_filename),
                code.co_firstlineno,
            ]
    return found


def compile_file(path: Path, name: str) -> dict[str, Any]:
    """Compile one pipeline of a file."""
    files = FilesRead()
    sys.addaudithook(files)
    from kfp import compiler

    files.active = True
    environ_class = os.environ.__class__
    os.environ.__class__ = RecordedEnvironment
    try:
        module, compiled = load(path)
    finally:
        os.environ.__class__ = environ_class
        files.active = False
    found = pipelines_of(module, compiled)
    chosen = choose(found, compiled, name, path)
    if chosen is None:
        names = {key: str(value.pipeline_spec.pipeline_info.name) for key, value in found.items()}
        return {"error": {"kind": "choice", "pipelines": names}}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(chosen, str(target))
        text = target.read_text(encoding="utf-8")
    read = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in files.names if Path(name).is_file()}
    return {"ir": text, "origins": origins(), "files": read, "environ": RecordedEnvironment.asked}


def failure(error: BaseException, path: Path) -> dict[str, Any]:
    """Say what went wrong, with the user's own frames only."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if _own_file(os.path.realpath(frame.filename))
    ]
    frames = [frame for frame in frames if frame.filename != __file__]
    if isinstance(error, SyntaxError) and error.filename:
        where, line = str(error.filename), int(error.lineno or 0)
    elif frames:
        where, line = frames[-1].filename, int(frames[-1].lineno or 0)
    else:
        where, line = str(path), 0
    kind = type(error).__name__
    return {
        "error": {
            "kind": kind,
            "message": str(error),
            "file": where,
            "line": line,
            "trace": "".join(traceback.format_list(frames)),
            "module": getattr(error, "name", "") or "",
        }
    }


def main(arguments: list[str]) -> int:
    path, out = Path(arguments[0]), Path(arguments[1])
    try:
        answer = compile_file(path, arguments[2] if len(arguments) > 2 else "")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's file may raise anything
        answer = failure(error, path)
    out.write_text(json.dumps(answer), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
