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
from ondol.formats.kfp_container import PythonCode


def missing(code: PythonCode) -> list[str]:
    """Return the requirements that the running environment does not satisfy."""
    return environments.missing((*code.packages, *_kfp_need(code)))


def _kfp_need(code: PythonCode) -> list[str]:
    """The compiler pins its own kfp; any later one of the same major version runs the component too."""
    if not code.kfp:
        return ["kfp>=2"]
    name, _, version = code.kfp.partition("==")
    return [f"{name}>={version},<{int(version.split('.')[0]) + 1}"] if version[:1].isdigit() else [code.kfp]


def _need(code: PythonCode) -> Need:
    kfp = code.kfp or f"kfp=={metadata.version('kfp')}"
    return Need(code.packages, bare=(kfp,), options=code.pip_options)


def find(code: PythonCode, home: Path) -> Environment:
    """Return where the component would run, without building anything."""
    if not missing(code):
        return Environment(sys.executable, environments.running(), "the running Python has all its packages")
    return environments.find(_need(code), home)


def ensure(code: PythonCode, home: Path, say: Callable[[str], None]) -> Environment:
    """Return where the component runs, building it when needed.

    :param say: told when building starts.
    :raises DependencyError: when uv is missing or the packages cannot be installed, with the installer's words.
    """
    found = find(code, home)
    return found if found.identity else environments.ensure(_need(code), home, say)
