"""Where the example projects are: in the repository's `examples/`, or inside the installed package.

The wheel carries copies of `examples/…` as `ondol/templates/…`, so that both find the same files.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType

from ondol.base import errors

_PACKAGE = Path(__file__).resolve().parent.parent


def path(name: str) -> Path:
    """Return the folder of an example project.

    :raises NotFoundError: when there is no such example.
    """
    repository = _PACKAGE.parent.parent
    for folder in (_PACKAGE / "templates" / name, repository / "examples" / name, repository / name):
        if folder.is_dir():
            return folder
    raise errors.NotFoundError(
        f"no example {name!r}", way_out="There are demo, flights, assistant, docs and evals.", code="NOF-020"
    )


def copy(name: str, into: Path, without: Collection[str] = ()) -> Path:
    """Copy an example project into a folder; files that are there already and differ are kept. Returns the folder.

    :param without: names of files that are not copied.
    """
    source = path(name)
    for file in sorted(source.rglob("*")):
        relative = file.relative_to(source)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
        if file.is_file() and not hidden and file.name not in without:
            target = into / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copyfile(file, target)
    return into


def module(folder: Path, name: str) -> ModuleType:
    """Import `name.py` of a project, with its neighbours importable; the same file is imported once.

    :raises NotFoundError: when the project has no such file.
    """
    file = (folder / f"{name}.py").resolve()
    known = f"ondol_project_{abs(hash(str(file)))}_{name}"
    if known in sys.modules:
        return sys.modules[known]
    spec = importlib.util.spec_from_file_location(known, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise errors.NotFoundError(f"no file {name + '.py'!r}", where=str(folder), code="NOF-020")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[known] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[known]
        raise
    return loaded
