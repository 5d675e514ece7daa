"""Which Python a component runs in: the running one when it has what is asked for, else one built for it.

Must not install anything into the running environment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from ondol.base import environments
from ondol.base.environments import Environment, Need
from ondol.formats.kfp_container import Code, PythonCode
from ondol.records.project import ImageSpec


def _lacking(code: Code, image: ImageSpec) -> bool:
    """Whether the running environment is not what the component and its image ask for."""
    own = (*code.packages, *_kfp_need(code)) if isinstance(code, PythonCode) else ()
    return not environments.is_running_python(image.python) or bool(environments.missing((*image.packages, *own)))


def _kfp_need(code: PythonCode) -> list[str]:
    """The compiler pins its own kfp; any later one of the same major version runs the component too."""
    if not code.kfp:
        return ["kfp>=2"]
    name, _, version = code.kfp.partition("==")
    return [f"{name}>={version},<{int(version.split('.')[0]) + 1}"] if version[:1].isdigit() else [code.kfp]


def _need(code: Code, image: ImageSpec) -> Need:
    if not isinstance(code, PythonCode):
        return Need(image.packages, python=image.python)
    kfp = code.kfp or f"kfp=={metadata.version('kfp')}"
    return Need((*image.packages, *code.packages), bare=(kfp,), options=code.pip_options, python=image.python)


def find(code: Code, image: ImageSpec, home: Path) -> Environment:
    """Return where the component would run, without building anything.

    :param image: what its image means here.
    """
    if not _lacking(code, image):
        return Environment(sys.executable, environments.running(), "the running Python has all its packages")
    return environments.find(_need(code, image), home)


def ensure(code: Code, image: ImageSpec, home: Path, say: Callable[[str], None]) -> Environment:
    """Return where the component runs, building it when needed.

    :param image: what its image means here.
    :param say: told when building starts.
    :raises DependencyError: when uv is missing or the packages cannot be installed, with the installer's words.
    """
    found = find(code, image, home)
    return found if found.identity else environments.ensure(_need(code, image), home, say)
