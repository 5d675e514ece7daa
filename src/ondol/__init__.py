"""Ondol: Kubeflow, MLflow and LLMOps files and clients on this machine, with the loop closed.

The names below are the whole public Python interface; they are loaded when first used, so that `import ondol` is quick.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "OndolError": "ondol.base.errors",
    "evaluate": "ondol.evaluation.api",
}

__all__ = sorted(_PUBLIC)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'ondol' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
