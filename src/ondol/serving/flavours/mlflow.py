"""MLflow's model folders: the library's own flavour where we have it, else MLflow's `python_function`.

The `MLmodel` file says which files are whose, which versions wrote them, and what the model takes. Importing MLflow
itself takes seconds, so that is left to the models that need it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from ondol.base import errors
from ondol.serving.artifacts import Artifact
from ondol.serving.flavours import pickled

Json = dict[str, Any]
Open = Callable[[Path, str, str], Artifact]
"""Opens a file of a format, in a dialect."""

_FILE = {"sklearn": "model.pkl", "xgboost": "model.xgb", "lightgbm": "model.lgb", "catboost": "model.cb", "onnx": ""}


def load(folder: Path, open_file: Open, safe: bool) -> Artifact:
    """Return the model in an MLflow folder.

    :param open_file: opens one file of a format, with all checks.
    :param safe: refuse `python_function`, which unpickles whatever its flavour keeps.
    :raises InputError: INP-222 when no flavour can be loaded.
    :raises RefusedError: REF-390 in safe mode.
    """
    description = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8")) or {}
    flavours = description.get("flavors") or {}
    artifact = _native(folder, flavours, open_file)
    if artifact is None:
        if "python_function" not in flavours:
            raise errors.InputError(
                f"the MLmodel file has no flavour that can be served: {', '.join(flavours)}",
                where=str(folder / "MLmodel"),
                way_out="Log the model with a python_function flavour.",
                code="INP-222",
            )
        if safe:
            raise errors.RefusedError(
                f"safe mode opens no pickle, and MLflow's python_function of {', '.join(flavours)} may hold one",
                where=str(folder),
                way_out="Log the model with skops, ONNX or a booster's flavour, or serve without safe mode.",
                code="REF-390",
            )
        artifact = Artifact(_pyfunc(folder), "pyfunc")
    return replace(artifact, signature=_signature(description), example=_example(folder, description))


def _native(folder: Path, flavours: Json, open_file: Open) -> Artifact | None:
    """Return the model through the first flavour that is read without MLflow."""
    for name, default in _FILE.items():
        flavour = flavours.get(name)
        if flavour is None:
            continue
        if name == "sklearn":
            pickled.check_version("scikit-learn", str(flavour.get("sklearn_version", "")), folder)
        file = folder / str(flavour.get("pickled_model") or flavour.get("data") or default)
        # A booster answers as it is; an estimator in scikit-learn's manner, as MLServer loads both.
        dialect = "v1" if str(flavour.get("model_class", "")).endswith(".Booster") else "v2"
        found = replace(open_file(file, name, dialect), dialect="")
        return replace(found, spec=replace(found.spec, own_names=False)) if found.spec is not None else found
    return None


def _pyfunc(folder: Path) -> Any:
    import mlflow.pyfunc

    try:
        return mlflow.pyfunc.load_model(str(folder))
    except (ImportError, AttributeError, OSError, ValueError, TypeError, KeyError, mlflow.MlflowException) as error:
        raise errors.InputError(
            f"MLflow cannot load the model: {error}", where=str(folder), way_out="", code="INP-222"
        ) from error


def _signature(description: Json) -> tuple[Json, ...]:
    text = (description.get("signature") or {}).get("inputs")
    columns = json.loads(text) if text else []
    return tuple(column for column in columns if isinstance(column, dict) and column.get("type") != "tensor")


def _example(folder: Path, description: Json) -> Any:
    info = description.get("saved_input_example_info") or {}
    file = folder / str(info.get("artifact_path", "input_example.json"))
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
