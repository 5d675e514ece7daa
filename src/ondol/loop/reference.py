"""What drift is measured against: held-out rows of the release that serves, with its predictions, kept as a blob."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondol.loop.context import Context
from ondol.loop.scoring import Scored
from ondol.store import counters
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

if TYPE_CHECKING:
    import pandas as pd

PREDICTION = "prediction"
_ROWS = 5000  # enough for every test used; more only costs time
_EXAMPLES = 3


def example(data: Path, features: Sequence[str]) -> list[dict[str, Any]]:
    """Return a few rows as the registry wants an input example; a column with empty cells has one in them."""
    import pandas as pd

    from ondol.data import tables

    frame = tables.read(data)[list(features)]
    chosen = list(range(min(_EXAMPLES, len(frame))))
    for name in frame.columns:
        empty = frame[name].isna().to_numpy()
        if empty.any() and not empty[chosen].any():
            chosen.append(int(empty.argmax()))
    rows = frame.iloc[chosen].to_dict("records")
    return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in rows]


def keep(context: Context, release: str, data: Path, target: str, scored: Scored) -> None:
    """Keep the reference of a release: up to 5,000 rows spread evenly over the held-out data."""
    from ondol.data import tables

    frame = tables.read(data)
    frame = frame[frame[target].notna()][list(scored.features)].copy()
    if scored.predictions.values.ndim == 1:
        frame[PREDICTION] = scored.predictions.values
    frame = frame.iloc[:: max(1, -(-len(frame) // _ROWS))]
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    counters.put_fact(context.store, f"reference/{release}", context.blobs.put_bytes(buffer.getvalue()))


def load(store: Store, blobs: Blobs, release: str) -> pd.DataFrame | None:
    """Return the reference of a release, or None when it has none (it was not made by the loop)."""
    import pandas as pd

    digest = counters.fact(store, f"reference/{release}")
    return pd.read_parquet(io.BytesIO(blobs.get_bytes(digest))) if digest else None
