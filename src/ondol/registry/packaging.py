"""A model file or folder as an MLflow model folder (`MLmodel` and what belongs to it), without loading it here.

The requirements are those of the running environment, written down explicitly: left to itself, MLflow starts a process
that imports everything to guess them (2 s and more).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ondol.base import errors

Json = dict[str, Any]
MODEL_FILES = (".joblib", ".pkl", ".pickle", ".sav")
_CONVERT_SECONDS = 300


def find_model(path: Path) -> Path:
    """Return the MLflow model folder or the one model file that a path names.

    :raises InputError: when there is no such path, or a folder with no model or several.
    """
    if not path.exists():
        raise errors.InputError(f"no model at {str(path)!r}", where=str(path), code="INP-080")
    if path.is_file() or (path / "MLmodel").is_file():
        return path
    found = [file for file in sorted(path.iterdir()) if file.suffix in MODEL_FILES]
    if len(found) != 1:
        raise errors.InputError(
            f"{str(path)!r} holds {len(found)} model files, not one",
            where=str(path),
            way_out=f"Give the file itself, an MLflow model folder, or a folder with one of {', '.join(MODEL_FILES)}.",
            code="INP-081",
        )
    return found[0]


def package(source: Path, target: Path, *, model_id: str, run: str, example: Sequence[Json] | None = None) -> None:
    """Write an MLflow model folder for a model file, or a copy of one with its new identity.

    :param example: some input records; they give the signature.
    :raises InputError: when the file cannot be loaded as a scikit-learn compatible model.
    """
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
        description = yaml.safe_load((target / "MLmodel").read_text(encoding="utf-8")) or {}
    else:
        target.mkdir(parents=True, exist_ok=True)
        description = _describe(_converted(source, target / "model.pkl"), target, example)
    description |= {"model_id": model_id, **({"run_id": run} if run else {})}
    (target / "MLmodel").write_text(yaml.safe_dump(description, sort_keys=True), encoding="utf-8")


def _converted(source: Path, target: Path) -> Json:
    command = [sys.executable, "-m", "ondol.registry.convert", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_CONVERT_SECONDS, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise errors.InputError(
            f"the model cannot be loaded: {last}",
            where=str(source),
            way_out="Write it with joblib.dump or pickle, in an environment with the same scikit-learn.",
            code="INP-082",
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _describe(facts: Json, folder: Path, example: Sequence[Json] | None) -> Json:
    import mlflow

    requirements = [f"mlflow=={mlflow.__version__}", *facts["requirements"]]
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    python_env = {"python": facts["python"], "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(yaml.safe_dump(python_env, sort_keys=False), encoding="utf-8")
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={facts['python']}", "pip", {"pip": requirements}],
    }
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda, sort_keys=False), encoding="utf-8")
    flavors: Json = {
        "sklearn": {
            "code": None,
            "pickled_model": "model.pkl",
            "serialization_format": "cloudpickle",
            "sklearn_version": facts["sklearn"],
        }
    }
    if facts["predicts"]:
        flavors["python_function"] = {
            "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
            "loader_module": "mlflow.sklearn",
            "model_path": "model.pkl",
            "predict_fn": "predict",
            "python_version": facts["python"],
        }
    return {
        "artifact_path": "model",
        "flavors": flavors,
        "mlflow_version": mlflow.__version__,
        "model_size_bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "model_uuid": uuid.uuid4().hex,
        "utc_time_created": time.strftime("%Y-%m-%d %H:%M:%S.000000", time.gmtime()),
        **_example(example, folder),
    }


def _example(example: Sequence[Json] | None, folder: Path) -> Json:
    if not example:
        return {}
    columns = list(example[0])
    split = {"columns": columns, "data": [[row.get(name) for name in columns] for row in example]}
    (folder / "input_example.json").write_text(json.dumps(split, ensure_ascii=False), encoding="utf-8")
    # A column that is empty in the example may be empty in requests; a full one is required, as MLflow infers it.
    schema = [
        {"type": _type([row[name] for row in example if row.get(name) is not None]), "name": name,
         "required": all(row.get(name) is not None for row in example)}
        for name in columns
    ]  # fmt: skip
    return {
        "signature": {"inputs": json.dumps(schema, ensure_ascii=False), "outputs": None, "params": None},
        "saved_input_example_info": {
            "artifact_path": "input_example.json",
            "pandas_orient": "split",
            "serving_input_path": None,
            "type": "dataframe",
        },
    }


def _type(values: Sequence[Any]) -> str:
    if values and all(isinstance(value, bool) for value in values):
        return "boolean"
    if all(value is None or isinstance(value, (int, float)) for value in values):
        return "double"  # a column of whole numbers today may hold a missing value tomorrow
    return "string"
