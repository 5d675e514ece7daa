"""Pipelines that begin with a `ColumnTransformer`, without data frames: from a request's cells to the model's matrix.

Encoders of categories work column by column, so each is asked once, when the model is loaded, what it makes of every
category, of an unknown one and of a missing one; a request then only looks that up. Numbers go through the steps that
`steps` knows. What is neither is left to the original.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.serving import describing
from ondol.serving.engines import steps
from ondol.serving.engines.base import Engine, Matrix
from ondol.serving.inputs import InputSpec

Cells = list[list[Any]]
_COLUMNWISE = frozenset({"SimpleImputer", "OneHotEncoder", "OrdinalEncoder"})
_UNKNOWN = "\x00unknown"
_MOST_CATEGORIES = 10_000


@dataclass(frozen=True)
class Numbers:
    """Columns of numbers and the steps they go through."""

    places: list[int]
    steps: list[steps.Step]

    def __call__(self, rows: Cells) -> Matrix:
        places = self.places
        found = np.array([[row[place] for place in places] for row in rows], dtype=np.float64)
        for step in self.steps:
            found = step(found)
        return found


@dataclass(frozen=True)
class Categories:
    """One column of categories, each with what the encoder makes of it, shape (width,)."""

    place: int
    table: dict[Any, NDArray[np.float64]]
    unknown: NDArray[np.float64] | None
    """What becomes of others; None: they are an error, as in the encoder."""

    @property
    def width(self) -> int:
        return len(next(iter(self.table.values())))

    def __call__(self, rows: Cells) -> Matrix:
        place, table, unknown = self.place, self.table, self.unknown
        if unknown is not None:
            return np.array([table.get(row[place], unknown) for row in rows])
        try:
            return np.array([table[row[place]] for row in rows])
        except KeyError as error:
            raise ValueError(f"unknown category {error} in column {place}") from None


def compile_model(model: Any, spec: InputSpec, compile_last: Callable[[Any], Engine | None]) -> ColumnsEngine | None:
    """Return the engine of a pipeline that begins with a `ColumnTransformer`, or None.

    :param compile_last: compiles what comes after it.
    """
    if type(model).__name__ != "Pipeline" or type(model.steps[0][1]).__name__ != "ColumnTransformer":
        return None
    if "any" in spec.kinds or not spec.n_features:
        return None
    rest = model.steps[1][1] if len(model.steps) == 2 else model[1:]
    engine = compile_last(rest)
    blocks: list[Numbers | Categories] = []
    for _, transformer, columns in model.steps[0][1].transformers_:
        made = _blocks(transformer, describing.places(columns, spec.names, spec.n_features), spec)
        if made is None or engine is None:
            return None
        blocks += made
    return ColumnsEngine(blocks, engine) if engine is not None and blocks else None


def _blocks(transformer: Any, places: list[int], spec: InputSpec) -> list[Numbers | Categories] | None:
    if (isinstance(transformer, str) and transformer == "drop") or not places:
        return []
    parts = [step for _, step in transformer.steps] if type(transformer).__name__ == "Pipeline" else [transformer]
    if type(parts[-1]).__name__ in ("OneHotEncoder", "OrdinalEncoder"):
        if any(type(part).__name__ not in _COLUMNWISE for part in parts):
            return None
        return _tabulated(transformer, parts[-1], places, spec)
    made = [steps.compile_step(part) for part in parts]
    if any(step is None for step in made) or any(spec.kind(place) != "number" for place in places):
        return None
    return [Numbers(places, [step for step in made if step is not None])]


def _tabulated(transformer: Any, encoder: Any, places: list[int], spec: InputSpec) -> list[Numbers | Categories] | None:
    """Ask a transformer what it makes of every category of every column, and of unknown and missing ones."""
    columns = [np.asarray(values).tolist() for values in encoder.categories_]
    known = [[value for value in values if value is not None and value == value] for values in columns]
    if len(columns) != len(places) or any(not values or len(values) > _MOST_CATEGORIES for values in known):
        return None
    widths = list(getattr(encoder, "_n_features_outs", [1] * len(places)))
    made: list[Numbers | Categories] = []
    for index, place in enumerate(places):
        strange: Any = _UNKNOWN if spec.kind(place) == "text" else -987654321.25
        tolerant = encoder.handle_unknown != "error"
        asked = [*known[index], *([strange] if tolerant else []), *([None] if spec.takes_null(place) else [])]
        cells = [[values[0] for values in known] for _ in asked]
        for row, value in zip(cells, asked, strict=True):
            row[index] = value
        start = sum(widths[:index])
        answers = _transformed(transformer, cells, places, spec)[:, start : start + widths[index]]
        table = dict(zip(asked, answers, strict=True))
        made.append(Categories(place, table, table.pop(strange) if tolerant else None))
    return made


def _transformed(transformer: Any, cells: Cells, places: list[int], spec: InputSpec) -> Matrix:
    kinds = tuple(spec.kind(place) for place in places)
    names = tuple(spec.names[place] for place in places) if spec.names else ()
    frame = describing.as_rows(cells, InputSpec(len(places), names, kinds, frame=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # encoders warn of unknown categories
        found = transformer.transform(frame if names else frame.to_numpy())
    return np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=np.float64)


class ColumnsEngine:
    """Blocks of columns, then an engine. Takes a request's cells, not a data frame."""

    exact = False
    takes_cells = True

    def __init__(self, blocks: list[Numbers | Categories], engine: Engine) -> None:
        self._blocks = blocks
        self._engine = engine
        self.name = f"columns in {len(blocks)} blocks, {engine.name}"
        self.tolerance = getattr(engine, "tolerance", 1e-9)

    def _matrix(self, rows: Cells) -> Matrix:
        parts = [block(rows) for block in self._blocks]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def predict(self, rows: Cells) -> NDArray[Any]:
        return self._engine.predict(self._matrix(rows))

    def predict_proba(self, rows: Cells) -> NDArray[np.float64]:
        return self._engine.predict_proba(self._matrix(rows))

    def sources(self) -> dict[int, int]:
        """Return which column of the request a column of the matrix is, where it is one unchanged."""
        found, at = {}, 0
        for block in self._blocks:
            if isinstance(block, Numbers):
                plain = not block.steps or all(step is steps.unchanged for step in block.steps)
                found.update({at + index: place for index, place in enumerate(block.places) if plain})
                at += len(block.places)
            else:
                at += block.width
        return found

    def known(self) -> dict[int, list[Any]]:
        """Return the categories of each column of categories, with a strange one where it is taken."""
        found: dict[int, list[Any]] = {}
        for block in self._blocks:
            if isinstance(block, Categories):
                strange = block.unknown is not None and any(isinstance(one, str) for one in block.table)
                found[block.place] = [*block.table, *([_UNKNOWN] if strange else [])]
        return found
