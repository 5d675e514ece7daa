"""Which Python a component runs in: the running one when it has what is asked for, else one built with uv.

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ondol.base import errors, hashing
from ondol.formats.kfp_container import PythonCode

_READY = "ready.json"


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter with packages."""

    python: str
    """Path of the interpreter."""

    identity: str
    """Digest of everything installed in it; empty when it is not built yet."""

    note: str
    """One sentence for people."""


@functools.cache
def _running() -> str:
    """Return the digest of the running environment: Python and the names and versions of all distributions."""
    import sysconfig

    found = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    names = sorted(entry.name for folder in found for entry in Path(folder).glob("*.dist-info"))
    return hashing.of_json([sys.version, names])


def missing(code: PythonCode) -> list[str]:
    """Return the requirements that the running environment does not satisfy."""
    return [need for need in (*code.packages, *_kfp_need(code)) if not _satisfied(need)]


def _kfp_need(code: PythonCode) -> list[str]:
    """The compiler pins its own kfp; any later one of the same major version runs the component too."""
    if not code.kfp:
        return ["kfp>=2"]
    name, _, version = code.kfp.partition("==")
    return [f"{name}>={version},<{int(version.split('.')[0]) + 1}"] if version[:1].isdigit() else [code.kfp]


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


def find(code: PythonCode, home: Path) -> Environment:
    """Return where the component would run, without building anything."""
    lacking = missing(code)
    if not lacking:
        return Environment(sys.executable, _running(), "the running Python has all its packages")
    folder = _folder(code, home)
    python = str(folder / "bin" / "python")
    try:
        ready = json.loads((folder / _READY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Environment(python, "", f"an environment of its own is needed for {', '.join(lacking)}")
    return Environment(python, str(ready["identity"]), f"its own environment ({', '.join(code.packages)})")


def _folder(code: PythonCode, home: Path) -> Path:
    key = hashing.of_json([sys.version, sys.executable, sorted(code.packages), code.kfp, list(code.pip_options)])
    return home / "environments" / hashing.short(key, 16)


def ensure(code: PythonCode, home: Path, say: Callable[[str], None]) -> Environment:
    """Return where the component runs, building it when needed.

    :param say: told when building starts and ends.
    :raises DependencyError: when uv is missing or the packages cannot be installed, with the installer's words.
    """
    found = find(code, home)
    if found.identity:
        return found
    folder = _folder(code, home)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        found = find(code, home)  # somebody else may have built it while we waited
        if not found.identity:
            say(f"building an environment with {', '.join(code.packages) or code.kfp}")
            _build(code, folder)
            found = find(code, home)
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(code: PythonCode, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # a build that was cut short
    python = str(folder / "bin" / "python")
    kfp = code.kfp or f"kfp=={metadata.version('kfp')}"
    _uv("venv", "--quiet", "--python", sys.executable, str(folder))
    _uv("pip", "install", "--quiet", "--python", python, *code.pip_options, "--no-deps", kfp)
    if code.packages:
        _uv("pip", "install", "--quiet", "--python", python, *code.pip_options, *code.packages)
    frozen = _uv("pip", "freeze", "--quiet", "--python", python)
    ready = {"identity": hashing.of_json([sys.version, sorted(frozen.split())]), "packages": sorted(frozen.split())}
    temporary = folder / (_READY + ".new")
    temporary.write_text(json.dumps(ready, indent=1), encoding="utf-8")
    temporary.replace(folder / _READY)


def _uv(*arguments: str) -> str:
    try:
        import uv
    except ImportError as error:
        raise errors.DependencyError(
            "a component needs packages of its own, and uv is not installed", way_out="pip install uv", code="DEP-012"
        ) from error
    done = subprocess.run([uv.find_uv_bin(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise errors.DependencyError(
            f"the packages of a component cannot be installed: {done.stderr.strip()[-1500:]}",
            way_out="Correct packages_to_install, or check the network; what ran before is kept.",
            code="DEP-013",
        )
    return done.stdout
