"""PyTorch models that carry their own program: TorchScript (`torch.jit.save`) and exported ones (`torch.export.save`).

A file of `torch.save` holds a pickle and no program; it needs the classes it was made with and is refused. What the
model answers first is the prediction; rows go in as float32, one matrix a batch.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.base import errors
from ondol.serving import describing
from ondol.serving.artifacts import Artifact
from ondol.serving.flavours import requiring
from ondol.serving.inputs import FLOAT32_MAX, InputSpec


def load(file: Path) -> Artifact:
    """Return the model in a file.

    :raises InputError: INP-222 when it holds no program.
    :raises UnsupportedError: UNS-391 when it takes something else than rows of numbers.
    """
    inner = {name.partition("/")[2] for name in zipfile.ZipFile(file).namelist()}
    torch = requiring.module("torch")
    torch.set_num_threads(1)
    try:
        if "archive_format" in inner or any(name.startswith("models/") for name in inner):
            program = torch.export.load(str(file))
            return _artifact(torch, program.module(), _width(file, program))
        if "constants.pkl" in inner:
            return _artifact(torch, torch.jit.load(str(file), map_location="cpu").eval(), 0)
    except (RuntimeError, OSError, ValueError) as error:
        raise errors.InputError(f"PyTorch cannot read {file.name!r}: {error}", where=str(file), code="INP-222") from (
            error
        )
    raise errors.InputError(
        f"{file.name!r} was written by torch.save: it holds weights or a pickle, and no program",
        where=str(file),
        way_out="Write it with torch.export.save, or torch.jit.save.",
        code="INP-222",
    )


def _width(file: Path, program: Any) -> int:
    """Return how many numbers a row of an exported program has; 0: any."""
    names = program.graph_signature.user_inputs
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise errors.UnsupportedError(
            f"{file.name!r} takes {len(shapes)} inputs of shape {[tuple(map(str, one)) for one in shapes]}, no rows",
            way_out="Export it with one input of shape (rows, features).",
            code="UNS-391",
        )
    rows, width = shapes[0]
    if isinstance(rows, int):
        raise errors.UnsupportedError(
            f"{file.name!r} was exported for batches of exactly {rows} rows",
            way_out="Export it with dynamic_shapes={0: torch.export.Dim('rows')} for its input.",
            code="UNS-391",
        )
    return int(width) if isinstance(width, int) else 0


def _artifact(torch: Any, module: Any, width: int) -> Artifact:
    spec = InputSpec(width, limit=FLOAT32_MAX, outputs=describing.outputs(None, "FP32"))
    return Artifact(Module(torch, module), "pytorch", spec=spec)


class Module:
    """A program that takes one float32 matrix."""

    def __init__(self, torch: Any, module: Any) -> None:
        self._torch = torch
        self._module = module

    def predict(self, rows: Any) -> NDArray[Any]:
        """Return the first output; a single column is flattened: shape (n,) or (n, …)."""
        with self._torch.inference_mode():
            found = self._module(self._torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32)))
        answer = np.asarray((found[0] if isinstance(found, (tuple, list)) else found).detach().numpy())
        return answer[:, 0] if answer.ndim == 2 and answer.shape[1] == 1 else answer
