"""From a folder of model files to a fitted model, with everything checked that can be before it is opened.

The order is: the files' digest, which file it is, its first bytes, what a pickle would import; only then is it opened,
by the flavour of its library. Unpickling runs the file's own code: in safe mode no pickle is opened at all. A file
whose recorded scikit-learn is not ours is refused, never loaded "probably right".
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ondol.base import errors, hashing
from ondol.serving import model_files, pickles
from ondol.serving.artifacts import Artifact as Artifact  # the name this module is known for
from ondol.serving.flavours import pickled

log = logging.getLogger("ondol.serving")

_KNOWN_PACKAGES = frozenset(
    {
        "sklearn", "numpy", "scipy", "joblib", "pandas", "builtins", "__builtin__", "copyreg", "collections",
        "xgboost", "lightgbm", "catboost", "_loss",
    }
)  # fmt: skip
"""What scikit-learn's own pickles import; others are reported."""


@dataclass(frozen=True, slots=True)
class How:
    """How a model's files are to be read."""

    model_format: str = "sklearn"
    """KServe's format name."""

    dialect: str = "v1"
    """The service's protocol version: some libraries answer otherwise under `v2`, as KServe's servers do."""

    safe: bool = False
    """Open nothing that runs code when it is opened."""


def load(
    path: Path, digest: str = "", model_format: str = "sklearn", *, dialect: str = "v1", safe: bool = False
) -> Artifact:
    """Load the model in a file or folder.

    :param digest: `hashing.of_tree` of the files as released; checked before anything is opened.
    :param model_format: KServe's format name.
    :param dialect: the service's protocol version, `v1` or `v2`.
    :param safe: open no pickle, and nothing else that runs code.
    :raises InputError: INP-220 files changed, INP-221 no model file, INP-222 not loadable, INP-223 versions differ.
    :raises RefusedError: REF-390 a pickle in safe mode, REF-391 a pickle that imports what no model needs.
    :raises UnsupportedError: UNS-390 no such format, UNS-391 columns that cannot be sent.
    :raises DependencyError: DEP-390 the model's library is not installed.
    """
    check_files(path, digest)
    how = How(model_format, dialect, safe)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        artifact = _dispatch(path, how)
    if not callable(getattr(artifact.model, "predict", None)):
        kind = type(artifact.model).__name__
        raise errors.InputError(f"the file holds a {kind!r}, which has no predict()", where=str(path), code="INP-222")
    _refuse_other_versions(caught, path)
    said = dict.fromkeys(str(warning.message).split("\n")[0] for warning in caught)
    return replace(artifact, notes=(*artifact.notes, *said))


def check_files(path: Path, digest: str) -> None:
    """Check that a model's files are there, and the ones that were released.

    :raises InputError: INP-220 files changed, INP-221 no model file.
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


def _dispatch(path: Path, how: How) -> Artifact:
    if how.model_format not in model_files.FORMATS:
        raise errors.UnsupportedError(
            f"no model format {how.model_format!r}",
            way_out=f"There are {', '.join(sorted(model_files.FORMATS))}.",
            code="UNS-390",
        )
    if path.is_dir() and (path / "MLmodel").is_file():
        from ondol.serving.flavours import mlflow

        def opened(file: Path, flavour: str, dialect: str) -> Artifact:
            return open_file(file, replace(how, model_format=flavour, dialect=dialect))

        return mlflow.load(path, opened, how.safe)
    if how.model_format == "mlflow":
        raise errors.InputError(
            "modelFormat is 'mlflow', but there is no MLmodel file", where=str(path), code="INP-221"
        )
    if how.model_format == "huggingface":
        from ondol.serving.flavours import huggingface

        return huggingface.load(path)
    return open_file(model_files.find(path, how.model_format), how)


def open_file(file: Path, how: How) -> Artifact:
    """Open one model file of a format, after a look at its bytes."""
    container = model_files.container(file, how.model_format)
    if container == "pickle":
        return _unpickled(file, how.safe)
    if container == "skops":
        return adapted(pickled.load(file, is_pickle=False))
    return _OPENERS[how.model_format](file, how)


def _unpickled(file: Path, safe: bool) -> Artifact:
    if safe:
        raise refuse_pickle(file)
    report = pickles.check(file)
    artifact = adapted(pickled.load(file, is_pickle=True))
    foreign = [name for name in report.packages if name not in _KNOWN_PACKAGES]
    notes = [f"the pickle imports {', '.join(foreign)}"] if foreign else []
    notes += [] if report.complete else ["the pickle's imports could not be listed to its end"]
    return replace(artifact, notes=tuple(notes))


def refuse_pickle(file: Path) -> errors.RefusedError:
    """Return the error for a file that would run code in safe mode."""
    return errors.RefusedError(
        f"safe mode opens no pickle, and {file.name!r} is one",
        where=str(file),
        way_out="Save the model with skops, as ONNX or as the booster's own file, or serve without safe mode.",
        code="REF-390",
    )


def adapted(model: Any) -> Artifact:
    """Return an unpickled model, with its library's own adapter where there is one."""
    top, kind = type(model).__module__.partition(".")[0], type(model).__name__
    if top == "xgboost" and hasattr(model, "get_booster"):
        from ondol.serving.flavours import xgboost

        return xgboost.of_estimator(model)
    if top == "lightgbm" and hasattr(model, "booster_"):
        from ondol.serving.flavours import lightgbm

        return lightgbm.of_estimator(model)
    if top == "catboost" and kind.startswith("CatBoost"):
        from ondol.serving.flavours import catboost

        return catboost.of_estimator(model)
    return Artifact(model, "sklearn")


def _open_xgboost(file: Path, how: How) -> Artifact:
    from ondol.serving.flavours import xgboost

    return xgboost.load(file, how.dialect)


def _open_lightgbm(file: Path, how: How) -> Artifact:
    from ondol.serving.flavours import lightgbm

    return lightgbm.load(file)


def _open_catboost(file: Path, how: How) -> Artifact:
    from ondol.serving.flavours import catboost

    return catboost.load(file)


def _open_onnx(file: Path, how: How) -> Artifact:
    from ondol.serving.flavours import onnx

    return onnx.load(file)


def _open_pytorch(file: Path, how: How) -> Artifact:
    if how.safe:
        raise errors.RefusedError(
            f"safe mode runs no program of a file, and {file.name!r} is one",
            where=str(file),
            way_out="Export the model to ONNX, or serve without safe mode.",
            code="REF-390",
        )
    from ondol.serving.flavours import pytorch

    return pytorch.load(file)


_OPENERS: dict[str, Callable[[Path, How], Artifact]] = {
    "xgboost": _open_xgboost,
    "lightgbm": _open_lightgbm,
    "catboost": _open_catboost,
    "onnx": _open_onnx,
    "pytorch": _open_pytorch,
}


def _refuse_other_versions(caught: list[warnings.WarningMessage], path: Path) -> None:
    """Refuse a pickle that scikit-learn itself says was written by another minor version."""
    for warning in caught:
        if type(warning.message).__name__ == "InconsistentVersionWarning":
            theirs = str(getattr(warning.message, "original_sklearn_version", ""))
            pickled.check_version("scikit-learn", theirs, path)
