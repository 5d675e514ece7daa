"""Schemas and checks: everything that is wrong is found, and nothing that is right."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ondol.base import errors
from ondol.data import profile, profile_page, schema, validation
from ondol.data.schema import Column, Freshness, Rows, Schema
from ondol.data.validation import Finding, ValidationReport


class Noon:
    """A clock that stands still: 2024-03-01 12:00 UTC."""

    def now(self) -> float:
        return 1709294400.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here waits")


def table(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": [f"row-{number}" for number in range(rows)],
            "나이": random.integers(18, 80, rows),
            "요금": random.normal(50, 10, rows).round(2),
            "지역": random.choice(["서울", "부산", "대구"], rows),
            "at": pd.date_range("2024-01-01", periods=rows, freq="6h").strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )


def found(report: ValidationReport, column: str, check: str) -> Finding:
    (one,) = [finding for finding in report.findings if (finding.column, finding.check) == (column, check)]
    return one


def test_an_inferred_schema_accepts_its_own_table_and_the_next_of_its_kind() -> None:
    inferred = schema.infer(table())
    assert validation.check(table(), inferred).verdict == "pass"
    assert validation.check(table(seed=1), inferred).verdict == "pass"
    assert inferred.columns["지역"].values == ("대구", "부산", "서울")
    assert inferred.columns["at"].type == "datetime"
    assert inferred.columns["id"].unique


def test_every_kind_of_damage_is_found_with_count_and_examples() -> None:
    inferred = schema.infer(table())
    broken = table().drop(columns=["요금"]).rename(columns={"at": "when"})
    broken["나이"] = broken["나이"].astype("object")
    broken.loc[:2, "나이"] = "서른"
    broken.loc[10:30, "지역"] = "부싼"
    broken.loc[5, "id"] = "row-4"
    broken.loc[50:69, "id"] = None
    report = validation.check(broken, inferred)
    assert report.verdict == "fail"
    assert found(report, "요금", "present").severity == "fail"
    assert "there is 'when'" not in found(report, "요금", "present").message
    assert found(report, "at", "present").severity == "fail"
    assert found(report, "when", "extra").severity == "warn"
    strange = found(report, "나이", "type")
    assert (strange.severity, strange.count, strange.examples) == ("fail", 3, ("서른",))
    unknown = found(report, "지역", "values")
    assert (unknown.severity, unknown.count) == ("fail", 21)
    assert "부싼" in unknown.message
    assert found(report, "id", "unique").examples == ("row-4",)
    missing = found(report, "id", "nulls")
    assert (missing.severity, missing.count, missing.share) == ("fail", 20, 0.1)
    with pytest.raises(errors.InputError, match="the data check failed"):
        validation.refuse_failed(report)


def test_accepted_shares_are_accepted_and_described() -> None:
    frame = pd.DataFrame({"dep_time": [900.0, None, 1015.0, 1200.0]})
    column = Column("integer", nulls=0.25, min=0, max=2400, description="cancelled")
    report = validation.check(frame, Schema({"dep_time": column}))
    assert report.verdict == "pass"
    assert found(report, "dep_time", "nulls").message.endswith("up to 25.0% accepted: cancelled")
    tighter = validation.check(frame, Schema({"dep_time": replace(column, nulls=0.2, severity="warn")}))
    assert tighter.verdict == "warn"
    outside = validation.check(frame, Schema({"dep_time": replace(column, max=1000)}))
    assert found(outside, "dep_time", "range").examples == ("1015.0", "1200.0")


def test_freshness_is_measured_from_now_or_from_a_moment() -> None:
    frame = table(rows=200)  # until 2024-02-19
    columns = schema.infer(frame).columns
    fresh = Schema(columns, freshness=Freshness("at", within_days=14))
    assert found(validation.check(frame, fresh, clock=Noon()), "at", "freshness").severity == "pass"
    stale = replace(fresh, freshness=Freshness("at", within_days=5))
    finding = found(validation.check(frame, stale, clock=Noon()), "at", "freshness")
    assert finding.severity == "fail"
    assert "10.8 days before 2024-03-01T12:00:00.000Z" in finding.message
    earlier = replace(fresh, freshness=Freshness("at", within_days=5, as_of="2024-02-20T00:00:00Z"))
    assert found(validation.check(frame, earlier), "at", "freshness").severity == "pass"


def test_rows_and_groups_of_columns_that_name_a_row() -> None:
    frame = pd.DataFrame({"a": [1, 1, 2], "b": [1, 2, 2]})
    columns = {"a": Column("integer"), "b": Column("integer")}
    assert validation.check(frame, Schema(columns, unique=(("a", "b"),))).verdict == "pass"
    assert validation.check(frame, Schema(columns, unique=(("a",),))).verdict == "fail"
    assert validation.check(frame, Schema(columns, rows=Rows(min=4))).verdict == "fail"
    assert validation.check(frame, Schema(columns, rows=Rows(max=2))).verdict == "fail"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("columns: [", "not YAML"),
        ("rows: {min: 1}", "a mapping with `columns`"),
        ("columns: {a: {type: numbr}}", "numbr"),
        ("columns: {a: {type: number, nuls: 0.1}}", "unknown key 'columns.a.nuls'"),
        ("columns: {a: {type: number, nulls: 3}}", "not a share between 0 and 1"),
        ("columns: {a: {type: number, min: 3, max: 1}}", "min is above max"),
        ("columns: {a: {type: number}}\nunique: [[b]]", "'b' is used by `unique`"),
        ("columns: {a: number}", "columns.a is not a mapping"),
    ],
)
def test_a_wrong_schema_is_refused_by_field(text: str, says: str) -> None:
    with pytest.raises(errors.InputError) as caught:
        schema.parse(text)
    assert says in caught.value.message


_cells = st.one_of(st.integers(-1000, 1000), st.text(max_size=6), st.booleans())


@settings(max_examples=60, deadline=None)
@example({"0": [*[None] * 23, "", "\x00"]})
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.lists(st.one_of(st.none(), _cells), min_size=25, max_size=25),
        min_size=1,
        max_size=4,
    )
)
def test_any_table_passes_the_schema_inferred_from_it(columns: dict[str, list[object]]) -> None:
    frame = pd.DataFrame(columns)
    inferred = schema.infer(frame)
    assert schema.parse(schema.dump(inferred)) == inferred
    assert validation.check(frame, inferred).verdict != "fail"
    made = profile.profile(frame)
    assert len(made.columns) == len(columns)
    assert "<script" not in profile_page.render(made)


def test_a_profile_says_what_a_careful_reader_would() -> None:
    frame = table()
    frame["same"] = 1
    frame["target"] = frame["요금"] * 2
    frame = pd.concat([frame, frame.head(2)], ignore_index=True)
    made = profile.profile(frame, name="<고객>", target="target")
    notes = "\n".join(made.notes)
    assert "2 rows repeat an earlier one" in notes
    assert "same: has only one value" in notes
    assert "요금: nearly the same as 'target'" in notes
    by_name = {column.name: column for column in made.columns}
    assert by_name["나이"].quantiles[0] == frame["나이"].min()
    assert sum(bar.count for bar in by_name["요금"].bars) == len(frame)
    assert sum(bar.count for bar in by_name["at"].bars) == len(frame)
    page = profile_page.render(made)
    assert "&lt;고객&gt;" in page
    assert "<고객>" not in page
    assert "http" not in page, "the page stands alone"


def ondol(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ondol.cli.main", "data", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_command_line_infers_checks_and_fails_with_one(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "고객.csv", index=False)
    assert ondol("check", "고객.csv", folder=tmp_path).returncode == 2
    assert ondol("check", "고객.csv", "--infer", folder=tmp_path).stdout == "wrote schema.yaml\n"
    again = ondol("check", "고객.csv", "--infer", folder=tmp_path)
    assert (again.returncode, "exists already" in again.stderr) == (1, True)
    good = ondol("check", "고객.csv", "--json", folder=tmp_path)
    assert (good.returncode, json.loads(good.stdout)["verdict"]) == (0, "pass")
    table().drop(columns=["지역"]).to_csv(tmp_path / "worse.csv", index=False)
    bad = ondol("check", "worse.csv", folder=tmp_path)
    assert bad.returncode == 1
    assert "no column '지역'" in bad.stdout
    page = ondol("profile", "고객.csv", "--html", "page.html", folder=tmp_path)
    assert page.returncode == 0
    assert "나이" in (tmp_path / "page.html").read_text(encoding="utf-8")
    missing = ondol("profile", "고객.csv", "--target", "나이대", folder=tmp_path)
    assert (missing.returncode, "Did you mean '나이'?" in missing.stderr) == (2, True)
