"""`ondol ask | cost | budget | trace` in the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ondol.base import errors
from ondol.base.progress import SILENT
from ondol.cli.main import cli
from ondol.records.retrieval import IndexOptions
from ondol.retrieval import index as indexes
from ondol.testing.llm_home import LLMHome


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("# 롤백\n\n모델을 롤백하려면 `ondol model rollback` 명령을 씁니다.\n", encoding="utf-8")
    (tmp_path / "ondol.yaml").write_text(
        "name: t\napplications: {helper: {index: docs, retrieval: {threshold: 0.2}}}\n"
    )
    with LLMHome(tmp_path) as home:
        indexes.build("docs", docs, home=home.settings.home, store=home.store, options=IndexOptions(), progress=SILENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ONDOL_HOME", raising=False)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    cli.main(args=list(arguments), prog_name="ondol", standalone_mode=False)
    seen = capsys.readouterr()
    return seen.out, seen.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(run(capsys, *arguments, "--json")[0])


def test_ask_answers_in_process_and_says_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, "ask", "helper", "모델을 롤백하려면?")
    assert "ondol model rollback" in out
    assert "a.md" in out
    assert "extractive" in out
    assert "no data plane runs" in err


def test_ask_in_json_and_the_trace_behind_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answered = run_json(capsys, "ask", "helper", "모델을 롤백하려면?")
    assert answered["found"] is True
    listed = run_json(capsys, "trace", "list")
    assert listed[0]["trace"] == answered["trace"]
    assert listed[0]["question"] == "모델을 롤백하려면?"
    out, _ = run(capsys, "trace", "show", answered["trace"][:10])
    for word in ("ask helper", "retrieval", "answer extractive", "롤백", "dense"):
        assert word in out


def test_ask_for_what_does_not_exist(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(errors.NotFoundError, match="no application 'nobody'") as caught:
        run(capsys, "ask", "nobody", "hello?")
    assert "helper" in caught.value.way_out
    with pytest.raises(errors.InputError, match="empty"):
        run(capsys, "ask", "helper", "  ")


def test_budgets_are_set_listed_and_removed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "budget", "set", "application/helper", "0.5 USD", "--per", "hour", "--alert-at", "0.9")
    listed = run_json(capsys, "budget", "list")
    assert listed["budgets"][0]["budget"]["limit"] == 0.5
    assert listed["budgets"][0]["left"] == 0.5
    assert "application/helper" in run(capsys, "budget", "list")[0]
    run(capsys, "budget", "remove", "application/helper/hour")
    assert run_json(capsys, "budget", "list")["budgets"] == []
    with pytest.raises(errors.InputError, match="EUR"):
        run(capsys, "budget", "set", "all", "5 EUR")


def test_cost_of_nothing_and_a_wrong_since(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No calls" in run(capsys, "cost")[0]
    assert run_json(capsys, "cost", "--by", "prompt", "--since", "7d")["totals"] == []
    with pytest.raises(errors.UsageError, match="yesterday"):
        run(capsys, "cost", "--since", "yesterday")


@pytest.mark.parametrize("command", [["ask"], ["cost"], ["budget"], ["budget", "set"], ["trace", "show"]])
def test_help_has_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(args=[*command, "--help"], prog_name="ondol", standalone_mode=False)
    assert "Usage: ondol" in capsys.readouterr().out
