"""`ondol loop` on a project that `ondol init` made of a table: from the table to an answer, with two commands."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from tests.behaviour import demo_tools


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_from_a_table_to_an_answer_with_two_commands(tmp_path: Path) -> None:
    place = demo_tools.new(tmp_path)
    generator = np.random.default_rng(1)
    age = generator.integers(18, 80, 1200).astype(float)
    leaves = np.where(age + generator.normal(0, 10, 1200) > 55, "예", "아니오")
    frame = pd.DataFrame({"나이": age, "지역": generator.choice(["서울", "부산"], 1200), "해지여부": leaves})
    frame.to_csv(tmp_path / "고객.csv", index=False)
    made = place.json("init", "churn", "--data", "고객.csv", "--target", "해지여부")
    project = demo_tools.Demo(tmp_path / "churn", place.environ)
    try:
        (decision,) = project.json("loop", "run", "--once")
        assert decision["verdict"] == "pass", decision["reason"]
        (state,) = project.json("loop", "status")
        assert state["stable"] == decision["evidence"]["release"]
        example = json.loads((project.folder / "example.json").read_text(encoding="utf-8"))
        data = next(one["url"] for one in project.json("status")["processes"] if one["name"] == "data")
        url = f"{data}/v1/models/{made['name']}:predict"
        answer = httpx.post(url, json=example, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["predictions"]) == len(example["instances"])
        (again,) = project.json("loop", "run", "--once")
        assert again["evidence"]["release"] == decision["evidence"]["release"]
        project.run("loop", "hold", made["name"], "--reason", "감사")
        assert project.json("loop", "status")[0]["held"] == "감사"
        project.run("loop", "release", made["name"])
        assert project.json("loop", "status")[0]["held"] == ""
    finally:
        project.run("up", "--stop")
