"""Imports a model's library, or says how to get it."""

from __future__ import annotations

import importlib
from typing import Any

from ondol.base import errors

EXTRAS = {
    "xgboost": "xgboost", "lightgbm": "lightgbm", "catboost": "catboost", "onnxruntime": "onnx", "torch": "pytorch",
    "transformers": "huggingface",
}  # fmt: skip
"""By module: the extra of ours that installs it."""


def module(name: str) -> Any:
    """Return a library.

    :raises DependencyError: DEP-390 when it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        top = name.partition(".")[0]
        raise errors.DependencyError(
            f"the model needs {top!r}, which cannot be imported here: {error}",
            way_out=f"pip install 'ondol[{EXTRAS.get(top, top)}]'",
            code="DEP-390",
        ) from error
