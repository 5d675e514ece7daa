"""From a folder of model files to a fitted estimator, with everything checked that can be before it is unpickled.

Wraps MLflow and scikit-learn's file formats. Unpickling runs the file's own code: only files whose digest is the
release's are opened, and a file whose recorded scikit-learn is not ours is refused, never loaded "probably right".
"""

from __future__ import annotations

import importlib.metadata
import pickle
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ondol.base import errors, hashing

Json = dict[str, Any]

_SUFFIXES = (".joblib", ".pkl", ".pickle", ".cloudpickle", ".skops")
"""In KServe's order, then what MLflow writes."""

_PICKLE_MAGIC = (b"\x80", b"(", b"c", b"]", b"}")  # protocol 2 and later; the rest are protocols 0 and 1
_COMPRESSED_MAGIC = (b"x\x9c", b"x\x01", b"x\xda", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\x00\x00", b"\x04\x22")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A fitted model and what its files say of it."""

    model: Any
    """Something with `predict`, and `predict_proba` when it is a classifier that has probabilities."""

    flavour: str
    """`sklearn` or `pyfunc`."""

    signature: tuple[Json, ...] = ()
    """MLflow's input columns: name, type, required; empty when there is none."""

    example: Any = None
    """MLflow's input example as plain JSON, when there is one."""

    notes: tuple[str, ...] = field(default_factory=tuple)
    """Warnings of the libraries while loading."""


def load(path: Path, digest: str = "", model_format: str = "sklearn") -> Artifact:
    """Load the model in a file or folder.

    :param digest: `hashing.of_tree` of the files as released; checked before anything is opened.
    :param model_format: KServe's format name.
    :raises InputError: INP-220 files changed, INP-221 no model file, INP-222 not loadable, INP-223 versions differ.
    """
    if not path.exists():
        raise errors.InputError(f"the model's files are gone: {str(path)!r}", code="INP-221")
    if digest and (found := hashing.of_tree(path)) != digest:
        raise errors.InputError(
            f"the files are not the ones released: {hashing.short(found)} instead of {hashing.short(digest)}",
            where=str(path),
            way_out="Register and release the model again.",
            code="INP-220",
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if path.is_dir() and (path / "MLmodel").is_file():
            artifact = _load_mlflow(path)
        elif model_format == "mlflow":
            raise errors.InputError(
                "modelFormat is 'mlflow', but there is no MLmodel file", where=str(path), code="INP-221"
            )
        else:
            artifact = Artifact(_open(_model_file(path)), "sklearn")
    if not callable(getattr(artifact.model, "predict", None)):
        kind = type(artifact.model).__name__
        raise errors.InputError(f"the file holds a {kind!r}, which has no predict()", where=str(path), code="INP-222")
    _refuse_other_versions(caught, path)
    notes = tuple(dict.fromkeys(str(warning.message).split("\n")[0] for warning in caught))
    return Artifact(artifact.model, artifact.flavour, artifact.signature, artifact.example, notes)


def _refuse_other_versions(caught: list[warnings.WarningMessage], path: Path) -> None:
    """Refuse a pickle that scikit-learn itself says was written by another minor version."""
    for warning in caught:
        if type(warning.message).__name__ == "InconsistentVersionWarning":
            theirs = str(getattr(warning.message, "original_sklearn_version", ""))
            _check_version("scikit-learn", theirs, path)


def _check_version(package: str, theirs: str, path: Path) -> None:
    ours = importlib.metadata.version(package)
    if theirs and theirs.split(".")[:2] != ours.split(".")[:2]:
        raise errors.InputError(
            f"the model was saved with {package} {theirs!r}, this process has {ours!r}",
            where=str(path),
            way_out=f"Train it again with {package} {ours}, or install ondol beside {package}=={theirs}.",
            code="INP-223",
        )


def _model_file(path: Path) -> Path:
    """Return the one model file: `model.joblib|pkl|pickle`, any other with such a suffix, or a lone file."""
    if path.is_file():
        return path
    found = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    known = [file for suffix in _SUFFIXES for file in found if file.suffix == suffix]
    named = [file for file in known if file.stem == "model"]
    candidates = named[:1] or known or found
    if len(candidates) == 1:
        return candidates[0]
    listed = ", ".join(file.name for file in (candidates or found)[:5]) or "nothing"
    raise errors.InputError(
        f"{'more than one' if candidates else 'no'} model file in the folder (found: {listed})",
        where=str(path),
        way_out=f"Name it model{_SUFFIXES[0]}.",
        code="INP-221",
    )


def _open(file: Path) -> Any:
    """Unpickle one file, after a look at its first bytes."""
    with file.open("rb") as stream:
        head = stream.read(8)
    try:
        if head.startswith(b"PK\x03\x04") or file.suffix == ".skops":
            return _open_skops(file)
        if not head.startswith((*_PICKLE_MAGIC, *_COMPRESSED_MAGIC)):
            raise errors.InputError(
                f"{file.name!r} is neither a pickle, a joblib nor a skops file", where=str(file), code="INP-222"
            )
        import joblib

        return joblib.load(file)
    except errors.OndolError:
        raise
    except (ImportError, AttributeError) as error:
        raise errors.InputError(
            f"{file.name!r} needs code that is not installed here: {error}",
            where=str(file),
            way_out="Install the package the model was made with beside ondol.",
            code="INP-222",
        ) from error
    except (pickle.UnpicklingError, OSError, EOFError, ValueError, TypeError, KeyError, IndexError) as error:
        raise errors.InputError(
            f"{file.name!r} cannot be loaded: {type(error).__name__}: {error}", where=str(file), code="INP-222"
        ) from error


def _open_skops(file: Path) -> Any:
    import skops.io

    unknown = skops.io.get_untrusted_types(file=file)
    foreign = [name for name in unknown if not name.startswith(("sklearn.", "numpy.", "scipy."))]
    if foreign:
        raise errors.InputError(
            f"{file.name!r} holds types outside scikit-learn, numpy and scipy: {', '.join(sorted(foreign)[:5])}",
            where=str(file),
            code="INP-222",
        )
    return skops.io.load(file, trusted=unknown)


def _load_mlflow(folder: Path) -> Artifact:
    description = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8")) or {}
    flavours = description.get("flavors") or {}
    signature = _signature(description)
    example = _example(folder, description)
    if "sklearn" in flavours:
        flavour = flavours["sklearn"]
        _check_version("scikit-learn", str(flavour.get("sklearn_version", "")), folder)
        model = _open(folder / str(flavour.get("pickled_model", "model.pkl")))
        return Artifact(model, "sklearn", signature, example)
    if "python_function" not in flavours:
        raise errors.InputError(
            f"the MLmodel file has neither the flavour 'sklearn' nor 'python_function': {', '.join(flavours)}",
            where=str(folder / "MLmodel"),
            code="INP-222",
        )
    import mlflow.pyfunc

    try:
        return Artifact(mlflow.pyfunc.load_model(str(folder)), "pyfunc", signature, example)
    except (ImportError, AttributeError, OSError, ValueError, TypeError, KeyError, mlflow.MlflowException) as error:
        raise errors.InputError(
            f"MLflow cannot load the model: {error}", where=str(folder), way_out="", code="INP-222"
        ) from error


def _signature(description: Json) -> tuple[Json, ...]:
    import json

    text = (description.get("signature") or {}).get("inputs")
    columns = json.loads(text) if text else []
    return tuple(column for column in columns if isinstance(column, dict) and column.get("type") != "tensor")


def _example(folder: Path, description: Json) -> Any:
    import json

    info = description.get("saved_input_example_info") or {}
    file = folder / str(info.get("artifact_path", "input_example.json"))
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
