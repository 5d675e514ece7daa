"""Which file of a folder is the model, as KServe's and MLServer's own servers look for it, and whether it is what its
name says.

Opens files only to read their first bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ondol.base import errors
from ondol.serving import pickles


@dataclass(frozen=True, slots=True)
class Convention:
    """Where one model format keeps its model."""

    suffixes: tuple[str, ...]
    """Names end so; the first is what a new file should be called."""

    right: Callable[[bytes], bool]
    """Whether a file's first bytes can be of this format."""

    kind: str
    """The format in words, for errors."""


_ZIP = b"PK\x03\x04"
Container = Literal["own", "pickle", "skops"]
"""How a model is written: in its library's own form, or as a Python object in one of two ways."""


def _nothing(head: bytes) -> bool:
    return False


def _booster(head: bytes) -> bool:
    """XGBoost writes JSON (`{`), UBJSON (`{` and a length) or, up to version 3.0, a binary that began with `binf`."""
    return head.lstrip()[:1] == b"{" or head.startswith(b"binf")


_PICKLES = (".joblib", ".pkl", ".pickle", ".cloudpickle", ".sav")
CONVENTIONS: Mapping[str, Convention] = {
    "sklearn": Convention((*_PICKLES, ".skops"), _nothing, "a pickle, joblib or skops file"),
    "xgboost": Convention((".bst", ".json", ".ubj", ".model", ".xgb"), _booster, "an XGBoost model"),
    "lightgbm": Convention((".bst", ".txt", ".lgb"), lambda head: head.startswith(b"tree"), "a LightGBM model"),
    "catboost": Convention((".cbm", ".bin", ".cb"), lambda head: head.startswith(b"CBM1"), "a CatBoost model"),
    "onnx": Convention((".onnx",), lambda head: head[:1] == b"\x08", "an ONNX model"),
    "pytorch": Convention(
        (".pt", ".pth", ".pt2"), lambda head: head.startswith(_ZIP), "a TorchScript or exported file"
    ),
}
"""By KServe's model format. Boosters may be pickled too, as scikit-learn estimators."""

_ONLY_OWN = ("onnx", "pytorch")

FORMATS = (*CONVENTIONS, "huggingface", "mlflow")
"""Every format that can be loaded."""


def find(path: Path, model_format: str) -> Path:
    """Return the one model file: the file itself, `model.SUFFIX`, any other of the format, or a lone file.

    :raises InputError: INP-221 when there is none, or more than one; KServe's servers refuse two as well.
    """
    convention = CONVENTIONS[model_format]
    if path.is_file():
        return path
    found = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    known = [file for suffix in _suffixes(model_format) for file in found if file.suffix == suffix]
    named = [file for file in known if file.stem == "model"]
    candidates = named or known or found
    if len(candidates) == 1:
        return candidates[0]
    listed = ", ".join(file.name for file in (candidates or found)[:5]) or "nothing"
    raise errors.InputError(
        f"{'more than one' if candidates else 'no'} model file in the folder (found: {listed})",
        where=str(path),
        way_out=f"Keep one, and name it model{convention.suffixes[0]}.",
        code="INP-221",
    )


def _suffixes(model_format: str) -> tuple[str, ...]:
    own = CONVENTIONS[model_format].suffixes
    return own if model_format in _ONLY_OWN else tuple(dict.fromkeys((*own, *_PICKLES, ".skops")))


def container(file: Path, model_format: str) -> Container:
    """Return how a file is written, by its first bytes and not by its name.

    :raises InputError: INP-222 when the bytes are neither the format's nor a Python object's.
    """
    with file.open("rb") as stream:
        head = stream.read(16)
    convention = CONVENTIONS[model_format]
    if convention.right(head):
        return "own"
    if model_format not in _ONLY_OWN and head.startswith(_ZIP):
        return "skops"
    if model_format not in _ONLY_OWN and pickles.looks_like_one(head):
        return "pickle"
    raise errors.InputError(
        f"{file.name!r} is not {convention.kind}: it begins with {head[:8]!r}", where=str(file), code="INP-222"
    )
