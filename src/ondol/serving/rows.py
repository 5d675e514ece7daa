"""Rows on their way from a body to a model: lists of values, or one matrix when they are many and all numbers.

A matrix is made once, where a body is read, and is never changed afterwards: whoever computes with it gets a copy.
Must not decide what is right, nor import what a model's own environment need not have.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = list[list[Any]] | NDArray[np.float64]
"""Cells in column order, or a matrix of shape (rows, features)."""

MATRIX_ROWS = 8
"""From so many rows a request is a matrix; fewer are cheaper to join with others as lists."""

_AT_ONCE = 2_048
"""Converting holds the interpreter."""


def matrix_of(rows: list[list[Any]]) -> NDArray[np.float64]:
    """Return rows of numbers as a matrix of their own; None becomes NaN.

    :raises ValueError: when the rows are not equally long, or hold what is no number.
    """
    if len(rows) <= _AT_ONCE:
        return _packed(rows)
    return np.concatenate([_packed(rows[start : start + _AT_ONCE]) for start in range(0, len(rows), _AT_ONCE)])


def _packed(rows: list[list[Any]]) -> NDArray[np.float64]:
    """Return rows as a matrix; `struct` is nearly twice as fast as numpy, but knows numbers only."""
    if len(set(map(len, rows))) == 1:
        width = len(rows[0])
        memory = bytearray(8 * len(rows) * width)
        try:
            struct.pack_into(f"{len(rows) * width}d", memory, 0, *chain.from_iterable(rows))
        except (struct.error, OverflowError):
            pass
        else:
            return np.frombuffer(memory, np.float64).reshape(len(rows), width)
    return np.array(rows, dtype=np.float64)


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of several requests as one; a matrix is a new one.

    :raises ValueError: when matrices are not equally wide.
    """
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    return cells_of(parts[0]) if len(parts) == 1 else [row for part in parts for row in cells_of(part)]


def cells_of(rows: Rows) -> list[list[Any]]:
    """Return rows as lists of values."""
    return rows if isinstance(rows, list) else rows.tolist()
