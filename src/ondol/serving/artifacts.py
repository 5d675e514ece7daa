"""A loaded model and what its files say of it: what every loader returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ondol.serving.inputs import InputSpec

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A fitted model and what its files say of it."""

    model: Any
    """Something with `predict`, and `predict_proba` when it is a classifier that has probabilities."""

    flavour: str
    """The library it calls: `sklearn`, `pyfunc`, `xgboost`, `onnx` …"""

    signature: tuple[Json, ...] = ()
    """MLflow's input columns: name, type, required; empty when there is none."""

    example: Any = None
    """MLflow's input example as plain JSON, when there is one."""

    notes: tuple[str, ...] = field(default_factory=tuple)
    """Warnings of the libraries while loading, and what a pickle runs."""

    dialect: str = ""
    """The protocol version it answers for, when it would answer otherwise under another."""

    spec: InputSpec | None = None
    """What the model takes, when its library says so itself; None: it is found out by looking and trying."""
