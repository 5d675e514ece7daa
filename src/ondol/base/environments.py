"""Python environments: the running one when it has what is asked for, else one built with uv.

Built environments live in `home/environments/<key>`, once per Python and package list, shared by all runs and
processes (a lock file keeps two from building at once). Must not install anything into the running environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ondol.base import errors, hashing

_READY = "ready.json"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter with packages."""

    python: str
    """Path of the interpreter."""

    identity: str
    """Digest of everything installed in it; empty when it is not built yet."""

    note: str
    """One sentence for people."""


@dataclass(frozen=True, slots=True)
class Need:
    """What an environment of its own must have."""

    packages: tuple[str, ...] = ()
    """Requirements as pip writes them."""

    bare: tuple[str, ...] = ()
    """Requirements that are installed first and without what they depend on."""

    options: tuple[str, ...] = ()
    """The installer's options, such as an index."""

    python: str = ""
    """Version, `3.11`; empty: the running one."""


@functools.cache
def running() -> str:
    """Return the digest of the running environment: Python and the names and versions of all distributions."""
    import sysconfig

    found = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    names = sorted(entry.name for folder in found for entry in Path(folder).glob("*.dist-info"))
    return hashing.of_json([sys.version, names])


def missing(needs: Iterable[str]) -> list[str]:
    """Return the requirements that the running environment does not satisfy."""
    return [need for need in needs if not _satisfied(need)]


@functools.cache
def _satisfied(need: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(need)
    except InvalidRequirement:
        return False  # an address or a path: only an installer can say
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    if requirement.url:
        return False
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    extras = [extra for extra in requirement.extras if not _extra_satisfied(requirement.name, extra)]
    return requirement.specifier.contains(version, prereleases=True) and not extras


def _extra_satisfied(name: str, extra: str) -> bool:
    from packaging.requirements import Requirement

    needs = [Requirement(text) for text in metadata.requires(name) or []]
    wanted = [need for need in needs if need.marker is not None and need.marker.evaluate({"extra": extra})]
    wanted = [need for need in wanted if need.marker is not None and not need.marker.evaluate({"extra": ""})]
    for need in wanted:
        try:
            if not need.specifier.contains(metadata.version(need.name), prereleases=True):
                return False
        except metadata.PackageNotFoundError:
            return False
    return True


def is_running_python(version: str) -> bool:
    """Return whether a version such as `3.11` or `3.11.7` is the running interpreter's minor version; empty: yes."""
    return not version or version.split(".")[:2] == [str(part) for part in sys.version_info[:2]]


def find(need: Need, home: Path) -> Environment:
    """Return the environment built for this need; its identity is empty when there is none. Builds nothing."""
    folder = _folder(need, home)
    python = str(folder / "bin" / "python")
    listed = ", ".join(need.packages) or ", ".join(need.bare) or f"Python {need.python}"
    try:
        ready = json.loads((folder / _READY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Environment(python, "", f"an environment of its own is needed for {listed}")
    return Environment(python, str(ready["identity"]), f"its own environment ({listed})")


def _folder(need: Need, home: Path) -> Path:
    which = [sys.version, sys.executable] if is_running_python(need.python) else ["python", need.python]
    key = hashing.of_json([*which, sorted(need.packages), list(need.bare), list(need.options)])
    return home / "environments" / hashing.short(key, 16)


def ensure(need: Need, home: Path, say: Say, whose: str = "a component") -> Environment:
    """Return the environment for a need, building it when there is none.

    :param say: told when building starts.
    :param whose: whose packages they are, for the error.
    :raises DependencyError: when uv is missing or the packages cannot be installed, with the installer's words.
    """
    found = find(need, home)
    if found.identity:
        return found
    folder = _folder(need, home)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        found = find(need, home)  # somebody else may have built it while we waited
        if not found.identity:
            say(f"building an environment with {', '.join(need.packages or need.bare) or f'Python {need.python}'}")
            _build(need, folder, whose)
            found = find(need, home)
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(need: Need, folder: Path, whose: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # a build that was cut short
    python = str(folder / "bin" / "python")
    _uv(
        whose,
        "venv",
        "--quiet",
        "--python",
        sys.executable if is_running_python(need.python) else need.python,
        str(folder),
    )
    if need.bare:
        _uv(whose, "pip", "install", "--quiet", "--python", python, *need.options, "--no-deps", *need.bare)
    if need.packages:
        _uv(whose, "pip", "install", "--quiet", "--python", python, *need.options, *need.packages)
    frozen = sorted(_uv(whose, "pip", "freeze", "--quiet", "--python", python).split())
    ready = {"identity": hashing.of_json([sys.version, need.python, frozen]), "packages": frozen}
    temporary = folder / (_READY + ".new")
    temporary.write_text(json.dumps(ready, indent=1), encoding="utf-8")
    temporary.replace(folder / _READY)


def _uv(whose: str, *arguments: str) -> str:
    try:
        import uv
    except ImportError as error:
        raise errors.DependencyError(
            f"{whose} needs packages of its own, and uv is not installed", way_out="pip install uv", code="DEP-012"
        ) from error
    done = subprocess.run([uv.find_uv_bin(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise errors.DependencyError(
            f"the packages of {whose} cannot be installed: {done.stderr.strip()[-1500:]}",
            way_out="Correct its requirements, or check the network; what ran before is kept.",
            code="DEP-013",
        )
    return done.stdout
