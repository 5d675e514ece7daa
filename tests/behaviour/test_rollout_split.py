"""The split: sticky, monotone, as large as asked for."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.records.rollout import Route
from ondol.rollout import split

ROUTE = Route("s", "model", "sha256:a", "sha256:b", 10.0, "salt")


@given(st.text(max_size=40), st.text(max_size=80), st.floats(0, 100), st.floats(0, 100))
def test_a_unit_once_in_the_candidate_stays_there_as_the_weight_grows(
    unit: str, salt: str, one: float, other: float
) -> None:
    smaller, larger = sorted((one, other))
    route = replace(ROUTE, salt=salt)
    if split.assign(replace(route, weight=smaller), unit) == "candidate":
        assert split.assign(replace(route, weight=larger), unit) == "candidate"


@pytest.mark.parametrize("weight", [0.0, 0.29, 1.0, 10.0, 50.0, 100.0])
def test_the_share_is_the_weight(weight: float) -> None:
    route = replace(ROUTE, weight=weight)
    n = 100_000
    found = sum(split.assign(route, f"user-{index}") == "candidate" for index in range(n))
    assert abs(found / n - weight / 100) < 0.005


def test_salts_split_differently_and_nobody_is_moved_without_a_candidate() -> None:
    units = [f"u{index}" for index in range(2000)]
    here = {unit for unit in units if split.assign(replace(ROUTE, weight=50), unit) == "candidate"}
    there = {unit for unit in units if split.assign(replace(ROUTE, weight=50, salt="other"), unit) == "candidate"}
    assert 350 < len(here & there) < 650
    assert {split.assign(replace(ROUTE, candidate="", weight=50), unit) for unit in units} == {"stable"}


def test_a_broken_split_shows_and_a_working_one_does_not() -> None:
    generator = random.Random(1)
    false_alarms = 0
    for _ in range(200):
        stable = candidate = 0
        alarm = False
        for index in range(2000):
            if generator.random() < 0.1:
                candidate += 1
            else:
                stable += 1
            alarm = alarm or (index % 50 == 0 and split.mismatch_log_e([(0.1, stable, candidate)]) > 6.9)
        false_alarms += alarm
    assert false_alarms <= 2
    assert split.mismatch_log_e([(0.1, 850, 150)]) > 6.9
    assert split.mismatch_log_e([(0.1, 975, 25)]) > 6.9
