"""Counts in place of rows: the same verdicts as the tests on the same cells, whatever the pages were."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.data import drift, sketches
from ondol.data.drift import Options


def table(rows: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({"amount": random.normal(shift, 1, rows), "plan": random.choice(["a", "b", "c"], rows)})
    frame.loc[random.random(rows) < 0.1 + shift / 20, "amount"] = np.nan
    frame["visits"] = random.poisson(3, rows)
    return frame


@settings(deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.4, 3.0]), st.sampled_from([1, 8]), st.integers(1, 5))
def test_a_sketch_says_what_the_tests_say_of_its_cells(seed: int, shift: float, blocks: int, pages: int) -> None:
    before, after = table(240, seed), table(320, seed + 1, shift)
    cells = sketches.cells_of(before)
    whole, merged = sketches.of_frame(after, cells, blocks), sketches.Sketch(cells, blocks)
    block = np.arange(len(after)) * blocks // len(after)
    for rows in np.array_split(np.arange(len(after)), pages):
        page = sketches.Sketch(cells, blocks)
        page.add(after.iloc[rows], block[rows])
        merged.merge(sketches.Sketch.from_bytes(page.to_bytes(), cells, blocks))
    assert merged.rows == whole.rows
    assert all((one == other).all() for one, other in zip(whole.counts, merged.counts, strict=True))

    def coded(frame: pd.DataFrame) -> pd.DataFrame:
        made = {}
        for one in cells:
            values = pd.Series(one.of(frame[one.column]), index=frame.index, dtype="float64")
            made[one.column] = values.where(values < one.count - 1)
            if one.kind == "category":
                made[one.column] = frame[one.column]
        return pd.DataFrame(made).assign(block=np.arange(len(frame)) * blocks // len(frame))

    options = Options(permutations=99, alpha=0.05)
    said = sketches.compare(sketches.of_frame(before, cells, blocks), merged, "", options)
    exact_options = Options(permutations=99, alpha=0.05, block="block" if blocks > 1 else "")
    exact = drift.compare(coded(before), coded(after), columns=[one.column for one in cells], options=exact_options)
    whole_rows = {(one.column, one.kind): one.effect for one in drift.compare(before, after).columns}
    mine = {(one.column, one.kind): (one.effect, one.p_value, one.drifted) for one in said.columns}
    theirs = {(one.column, one.kind): (one.effect, one.p_value, one.drifted) for one in exact.columns}
    assert mine.keys() == theirs.keys()
    for key, (effect, p_value, drifted) in theirs.items():
        assert mine[key][0] == pytest.approx(effect)
        assert mine[key][1] == pytest.approx(p_value, abs=1e-9)
        assert mine[key][2] == drifted
        assert whole_rows[key] - 0.01 <= effect <= whole_rows[key] + 1e-9  # what the cells hide of the values
