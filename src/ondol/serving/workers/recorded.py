"""What a model's files say of the environment it was made in, and whether ours is near enough.

MLflow writes `requirements.txt` and `python_env.yaml`; a scikit-learn pickle holds the version that wrote it. Near
enough is the same minor version of the library that computes; for a model of Python code, of every package it names.
Must not open a model: bytes are looked at, nothing is run.
"""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

from ondol.base import environments, errors
from ondol.base.environments import Need
from ondol.serving import model_files, pickles

_VERSION = re.compile(rb"_sklearn_version.{1,12}?(\d+\.\d+(?:\.\w+)*)", re.DOTALL)
_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?\s*==\s*([\w.!+]+)\s*(?:;.*)?$")
_LIBRARIES = {
    "sklearn": "scikit-learn", "xgboost": "xgboost", "lightgbm": "lightgbm", "catboost": "catboost",
    "onnx": "onnxruntime",
}  # fmt: skip
_ALSO_CALLED = {"xgboost": "xgboost-cpu"}
_NOT_COMPARED = ("mlflow", "mlflow-skinny", "cloudpickle")
"""Packages whose versions say nothing of what a model answers."""

OURS = ("pyyaml", "numpy", "pandas")
"""What the program that loads the model needs beside the model's own packages."""


def need_of(path: Path, model_format: str) -> Need | None:
    """Return the environment that a model needs for itself; None when ours will do, or nothing is recorded."""
    if path.is_dir() and (path / "MLmodel").is_file():
        return _of_mlflow(path)
    if model_format != "sklearn":
        return None  # the other formats' own files are read by any version of their library
    try:
        theirs = _sklearn_version(model_files.find(path, model_format))
    except errors.OndolError:
        return None  # loading says what is wrong with the files
    if not theirs or _same_minor("scikit-learn", theirs):
        return None
    return Need((f"scikit-learn=={theirs}", *OURS))


def _of_mlflow(folder: Path) -> Need | None:
    import yaml

    description: Any = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8")) or {}
    flavours = description.get("flavors") or {}
    listed = _requirements(folder)
    pins = {match[1].lower(): match[2] for line in listed if (match := _PIN.match(line))}
    native = [library for flavour, library in _LIBRARIES.items() if flavour in flavours]
    if native:
        theirs = {name: pins[name] for name in native if name in pins}
        if version := str((flavours.get("sklearn") or {}).get("sklearn_version") or ""):
            theirs["scikit-learn"] = version
        python = ""
    else:
        theirs = {name: version for name, version in pins.items() if name not in _NOT_COMPARED}
        python = _python(folder)
    differ = [name for name, version in theirs.items() if not _same_minor(name, version)]
    missing = [] if native else environments.missing(line for line in listed if not _PIN.match(line))
    if not differ and not missing and environments.is_running_python(python):
        return None
    needed = listed or tuple(f"{name}=={version}" for name, version in theirs.items())
    return Need((*needed, *(own for own in OURS if own not in pins)), python=python)


def _requirements(folder: Path) -> tuple[str, ...]:
    """Return MLflow's recorded requirements, one a line; comments and options are not kept."""
    try:
        text = (folder / "requirements.txt").read_text(encoding="utf-8")
    except OSError:
        return ()
    lines = (line.partition(" #")[0].strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith(("#", "-")))


def _python(folder: Path) -> str:
    """Return the minor version of the Python that made a model; empty when it is not recorded."""
    import yaml

    try:
        recorded: Any = yaml.safe_load((folder / "python_env.yaml").read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError):
        return ""
    return ".".join(str(recorded.get("python") or "").split(".")[:2])


def _sklearn_version(file: Path) -> str:
    """Return the scikit-learn that wrote a pickle; empty when the file does not say."""
    try:
        match = _VERSION.search(pickles.contents(file))
    except ValueError:
        return ""  # loading says that it is broken
    return match[1].decode() if match else ""


def _same_minor(package: str, theirs: str) -> bool:
    for name in filter(None, (package, _ALSO_CALLED.get(package))):
        try:
            return importlib.metadata.version(name).split(".")[:2] == theirs.split(".")[:2]
        except importlib.metadata.PackageNotFoundError:
            continue
    return False
