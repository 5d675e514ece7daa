"""Choosing the engine of a model: compile it where we can, believe it only after a self-test, else run the original.

The self-test asks both for the same rows: random ones, the input example, and for trees rows that sit exactly on split
thresholds and one float beside them, where float32 rounding shows. Labels must be equal; numbers within 1e-9, or what
an engine of float32 sums says of itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.serving import describing, inputs
from ondol.serving.engines import boosted, columns, histogram, linear, steps, trees
from ondol.serving.engines.base import Engine, Matrix, Original, Parts, Rows, median_us
from ondol.serving.engines.proof import Proof, ask, difference
from ondol.serving.inputs import InputSpec

log = logging.getLogger("ondol.serving")

TEST_ROWS = 256
SMALL_TEST_ROWS = 43
"""Rows that the original is also asked for in small batches."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine and why it was chosen."""

    engine: Engine
    reason: str
    """One sentence for the log and the model's metadata."""

    tested_rows: int = 0
    one_row_us: float = 0.0
    """Measured: microseconds for one row."""

    per_row_us: float = 0.0
    """Measured: microseconds for each further row of a batch."""

    proof: Proof | None = field(default=None, compare=False)
    """What the engine was tested on, for whoever keeps it; None: not kept, or dropped."""

    def estimate_us(self, rows: int) -> float:
        """Return how long a batch will take, in microseconds."""
        return self.one_row_us + self.per_row_us * max(0, rows - 1)

    def to_json(self) -> Json:
        return {
            "name": self.engine.name,
            "compiled": not self.engine.exact,
            "reason": self.reason,
            "self_test_rows": self.tested_rows,
            "one_row_us": round(self.one_row_us, 1),
            "per_row_us": round(self.per_row_us, 2),
        }


def choose(model: Any, spec: InputSpec, example: Any = None, name: str = "") -> Choice:
    """Return the engine for a model, measured and warmed up.

    :param spec: what the model takes; data-frame models are left to the original.
    :param example: further rows for the self-test, shape (n, features), when the model's files have some.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):  # on a busy machine OpenMP's threads wait for each other far longer than they work
        return _choose(model, spec, example, name)


def _choose(model: Any, spec: InputSpec, example: Any, name: str) -> Choice:
    original = Original(model)
    if spec.frame and (found := _of_columns(original, model, spec, name)) is not None:
        return found
    if spec.frame or spec.kinds or spec.n_features == 0:
        return Choice(original, "models of named or unknown columns run as they are")
    try:
        candidate = compile_model(model)
    except (AttributeError, TypeError, ValueError, ImportError, IndexError, KeyError) as error:
        candidate = None
        log.warning("%s: cannot be compiled (%s: %s); the original runs", name, type(error).__name__, error)
    rows = sample_rows(model, spec, example, thresholds=_thresholds(model, candidate))
    if candidate is None:
        return measured(Choice(original, f"{_kind(model)} has no compiled form"), rows)
    probabilities = has_probabilities(model)
    trouble = difference(original, candidate, rows[:SMALL_TEST_ROWS], probabilities)
    proof = ask(original, rows, probabilities)
    if trouble := trouble or proof.trouble(candidate):
        log.warning("%s: the compiled %s engine differs (%s); the original runs", name, candidate.name, trouble)
        return measured(Choice(original, f"self-test of the {candidate.name} engine failed: {trouble}"), rows)
    reason = f"same as the original on {len(rows)} rows"
    return measured(Choice(candidate, reason, len(rows), proof=proof), rows)


def _of_columns(original: Original, model: Any, spec: InputSpec, name: str) -> Choice | None:
    """Return the engine of a pipeline of named columns that answers as the original does; None: run it as it is."""
    try:
        candidate = columns.compile_model(model, spec, compile_model)
    except Exception as error:  # noqa: BLE001 - encoders are asked for what they may refuse in any way
        log.warning("%s: cannot be compiled (%s: %s); the original runs", name, type(error).__name__, error)
        return None
    if candidate is None:
        return None
    rows = _sample_cells(model, spec, candidate)
    if trouble := difference(_OfCells(original, spec), candidate, rows, has_probabilities(model)):
        log.warning("%s: the compiled %s engine differs (%s); the original runs", name, candidate.name, trouble)
        return None
    return measured(Choice(candidate, f"same as the original on {len(rows)} rows", len(rows)), rows)


class _OfCells:
    """The original, asked with a request's cells."""

    name = "model"
    exact = True

    def __init__(self, original: Original, spec: InputSpec) -> None:
        self._original = original
        self._spec = spec

    def predict(self, rows: Any) -> NDArray[Any]:
        return self._original.predict(describing.as_rows(rows, self._spec))

    def predict_proba(self, rows: Any) -> NDArray[np.float64]:
        return self._original.predict_proba(describing.as_rows(rows, self._spec))


def _sample_cells(model: Any, spec: InputSpec, candidate: columns.ColumnsEngine) -> list[list[Any]]:
    """Return cells to try a model on: numbers as in `sample_rows`, known and unknown categories, nulls."""
    sources = candidate.sources()
    known = {sources[column]: values for column, values in _thresholds(model, None).items() if column in sources}
    numbers: list[list[Any]] = sample_rows(model, replace(spec, nulls=()), thresholds=known).tolist()
    generator = np.random.default_rng(1)
    categories = candidate.known()
    for row in numbers:
        for column, values in categories.items():
            row[column] = values[int(generator.integers(len(values)))]
        for column in range(spec.n_features):
            if spec.takes_null(column) and None in categories.get(column, (None,)) and generator.random() < 0.1:
                row[column] = None
    return numbers


def compile_model(model: Any) -> Engine | None:
    """Return a compiled form of a model or pipeline, or None when there is none."""
    if type(model).__name__ == "Pipeline" and type(model).__module__.startswith("sklearn."):
        *before, (_, last) = model.steps
        engine = compile_model(last)
        compiled = [steps.compile_step(step) for _, step in before]
        if engine is None or any(step is None for step in compiled):
            return None
        return steps.Chain([step for step in compiled if step is not None], engine) if compiled else engine
    return (
        linear.compile_model(model)
        or trees.compile_model(model)
        or histogram.compile_model(model)
        or boosted.compile_model(model)
    )


def parts_of(engine: Engine) -> Parts | None:
    """Return what a compiled engine is made of; None when it cannot be kept."""
    taken: Parts | None = engine.parts() if hasattr(engine, "parts") else None
    return taken


def of_parts(parts: Parts, *, plain: bool = False) -> Engine:
    """Return the engine that was taken apart.

    :param plain: made of numpy alone, which may be slower.
    :raises Exception: of any kind, when these are not the parts of an engine.
    """
    if parts["kind"] == "linear":
        return linear.of_parts(parts)
    if parts["kind"] == "trees":
        return trees.of_parts(parts, plain=plain)
    if parts["kind"] == "chain":
        return steps.Chain(steps.steps_of_parts(parts["steps"]), of_parts(parts["engine"], plain=plain))
    raise ValueError(f"no engine {parts['kind']!r}")


def is_faster_whole(parts: Parts) -> bool:
    """Return whether an engine is faster with what numpy alone cannot do."""
    return parts["kind"] == "trees" or (parts["kind"] == "chain" and is_faster_whole(parts["engine"]))


def has_probabilities(model: Any) -> bool:
    """Return whether the model is a classifier with probabilities."""
    return hasattr(model, "classes_") and callable(getattr(model, "predict_proba", None))


def _kind(model: Any) -> str:
    if type(model).__name__ == "Pipeline":
        return "Pipeline of " + ", ".join(type(step).__name__ for _, step in model.steps)
    return type(model).__name__


def sample_rows(
    model: Any,
    spec: InputSpec,
    example: Any = None,
    count: int = TEST_ROWS,
    thresholds: Mapping[int, NDArray[np.float64]] | None = None,
) -> Matrix:
    """Return rows to try a model on: random, on thresholds, the example, and with nulls where they are taken.

    :param thresholds: where it splits, by column; None: looked for in the model.
    """
    generator = np.random.default_rng(0)
    width = max(1, spec.n_features)
    scales = 10.0 ** generator.integers(-2, 4, size=(count, 1))
    rows = generator.normal(size=(count, width)) * scales
    known = _thresholds(model, None) if thresholds is None else thresholds
    for column, values in known.items():
        if column < width and len(values):
            picked = generator.choice(values, size=count)
            side = generator.integers(0, 4, size=count)
            picked = np.where(side == 1, np.nextafter(picked, np.inf), picked)
            picked = np.where(side == 2, np.nextafter(picked, -np.inf), picked)
            rows[:, column] = np.where(side == 3, picked.astype(np.float32), picked)
    if spec.any_null:
        absent = generator.random(rows.shape) < 0.1
        rows[absent & np.asarray(spec.nulls)] = np.nan
    if example is not None:
        rows = np.vstack([np.asarray(example, dtype=np.float64), rows])
    return np.ascontiguousarray(rows)


def _thresholds(model: Any, candidate: Engine | None) -> dict[int, NDArray[np.float64]]:
    """Return the split thresholds per column: as the compiled form says, or of a tree model or a pipeline's last."""
    if isinstance(candidate, boosted.BoostedEngine):
        return candidate.thresholds()
    last = model.steps[-1][1] if type(model).__name__ == "Pipeline" else model
    found: dict[int, list[NDArray[np.float64]]] = {}
    estimators = np.ravel(getattr(last, "estimators_", [])) if hasattr(last, "estimators_") else [last]
    for estimator in estimators:
        tree = getattr(estimator, "tree_", None)
        if tree is not None:
            for column in np.unique(tree.feature[tree.feature >= 0]):
                found.setdefault(int(column), []).append(tree.threshold[tree.feature == column])
    for stage in getattr(last, "_predictors", []):
        for predictor in stage:
            inner = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            for column in np.unique(inner["feature_idx"]):
                found.setdefault(int(column), []).append(inner["num_threshold"][inner["feature_idx"] == column])
    joined = {column: np.concatenate(parts) for column, parts in found.items()}
    # Boosting writes "missing or not" as a split at infinity; no finite row sits there.
    return {column: values[np.abs(values) < inputs.FLOAT32_MAX] for column, values in joined.items()}


def measured(choice: Choice, rows: Rows) -> Choice:
    """Return the choice with its costs measured, which also warms the engine up."""
    predict = choice.engine.predict
    one, many = rows[-1:], rows[-min(32, len(rows)) :]
    one_us = median_us(lambda: predict(one))
    many_us = median_us(lambda: predict(many))
    per_row = max(0.0, many_us - one_us) / max(1, len(many) - 1)
    return replace(choice, one_row_us=one_us, per_row_us=per_row)
