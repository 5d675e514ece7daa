"""Logged requests as a table with the columns of a release's reference, and answers as numbers.

Requests are read by the hundred thousand here, so what is done for each of them is little. Must not compare anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ondol.loop import reference
from ondol.records.rollout import Observation
from ondol.store.observations import Exchange

if TYPE_CHECKING:
    import pandas as pd

_strict = msgspec.json.Decoder().decode


def table(rows: Sequence[Observation | Exchange], columns: Sequence[str]) -> pd.DataFrame:
    """Return logged requests as a table; what a request did not say is missing, and those that failed are left out.

    :param columns: of the reference, in its order; `prediction` is what was answered.
    """
    import pandas as pd

    features = [name for name in columns if name != reference.PREDICTION]
    instances: list[Sequence[Any]] = []
    answers: list[float | None] = []
    for row in rows:
        if not row.features or row.status >= 400:
            continue
        given = _read(row.features)
        several = isinstance(given, list) and given and isinstance(given[0], (list, dict))
        part = given if several else [given]
        instances += [_values(one, features) for one in part]
        answers += _answers(row.prediction, len(part))
    found: dict[str, Any] = dict(zip(features, zip(*instances, strict=True), strict=True)) if instances else {}
    found[reference.PREDICTION] = answers
    return pd.DataFrame({name: list(found.get(name, ())) for name in columns}, columns=list(columns))


def evenly(rows: Iterable[Exchange], most: int) -> list[Exchange]:
    """Return at most `most` requests, evenly chosen and in order, without copies that answered nobody.

    However many there are, no more than twice as many are held.
    """
    kept: list[Exchange] = []
    step = 1
    for number, row in enumerate(one for one in rows if not one.shadow):
        if number % step == 0:
            kept.append(row)
        if len(kept) == 2 * most:
            kept, step = kept[::2], 2 * step
    return kept if len(kept) <= most else kept[::2]


def _read(text: str) -> Any:
    """Return what JSON says; clients that are no browsers log NaN and Infinity, too."""
    try:
        return _strict(text)
    except msgspec.DecodeError:
        return json.loads(text)


def _values(instance: Any, features: list[str]) -> Sequence[Any]:
    """Return one value for each feature, by position or by name."""
    if isinstance(instance, dict):
        return [instance.get(name) for name in features]
    given = instance if isinstance(instance, list) else [instance]
    if len(given) == len(features):
        return given
    return [*given, *[None] * len(features)][: len(features)]


def _answers(prediction: str, rows: int) -> list[float | None]:
    """Return one number for each row of a logged answer."""
    try:
        values = _read(prediction)
    except ValueError:
        return [None] * rows
    if not isinstance(values, list) or len(values) != rows:
        values = [values] if rows == 1 else [None] * rows
    return [chance_of(value) for value in values]


def chance_of(value: Any) -> float | None:
    """Return one number for a prediction: the last class' probability, or the prediction itself."""
    while isinstance(value, list) and value:
        value = value[-1]
    return float(value) if isinstance(value, (int, float)) else None
