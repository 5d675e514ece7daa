"""`ondol ask` against a running data plane, over HTTP: streamed, whole, in JSON, refused, broken off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.behaviour.serving_tools import READY_SECONDS, wait
from tests.conftest import ANY

from ondol.app import running as processes
from ondol.base import errors
from ondol.base import settings as settings_module
from ondol.base.progress import SILENT
from ondol.cli.main import cli
from ondol.formats import project as projects
from ondol.records.retrieval import IndexOptions
from ondol.records.rollout import Observation, Route
from ondol.retrieval import index as indexes
from ondol.serving import application_release
from ondol.store import loads, observations, routes, usage
from ondol.store.connection import Store
from ondol.testing.fake_llm import FakeLLM, Fault

ANSWER = "`ondol model rollback` 명령을 씁니다. [1]"
QUESTION = "모델을 롤백하려면?"
PROJECT = """
name: t
monitoring: {{scores: 1.0}}
llms: {{fake: {{base_url: {url}, price: {{input: 1, output: 2}}, timeout: 120}}}}
applications:
  reader: {{index: docs, retrieval: {{threshold: 0.2}}}}
  writer: {{llm: fake/model, index: docs}}
"""


@dataclass
class Home:
    """A whole Ondol that serves two applications, and the LLM behind one of them."""

    folder: Path
    store: Store
    fake: FakeLLM
    script: list[Any]
    """What the LLM says next; `ANSWER` when empty."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("ask")
    script: list[Any] = []
    (folder / "docs").mkdir()
    text = "# 롤백\n\n모델을 롤백하려면 `ondol model rollback` 명령을 씁니다.\n"
    (folder / "docs" / "a.md").write_text(text, encoding="utf-8")
    with FakeLLM(lambda _: script.pop(0) if script else ANSWER, piece_latency=0.01) as fake:
        (folder / "ondol.yaml").write_text(PROJECT.format(url=fake.url), encoding="utf-8")
        settings = replace(settings_module.load(folder, {}), control=ANY, data=ANY, grpc_at="off")
        found = processes.ensure_running(settings, timeout=READY_SECONDS)
        settings = replace(settings, control=found.control, data=found.data)
        try:
            with Store(settings.database) as store:
                indexes.build(
                    "docs", folder / "docs", home=settings.home, store=store, options=IndexOptions(), progress=SILENT
                )
                project = projects.load(folder)
                for name, spec in project.applications.items():
                    release = application_release.build_release(store, settings, name, spec, project.llms)
                    routes.put(store, Route(name, "application", release.digest))
                wait(lambda: sum(one.state == "Loaded" for one in loads.every(store)) == 2)
                yield Home(folder, store, fake, script)
        finally:
            processes.stop(settings, timeout=READY_SECONDS)


@pytest.fixture
def ask(served: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `ondol ask` in the project's folder and return what it wrote to both outputs."""
    monkeypatch.chdir(served.folder)
    monkeypatch.delenv("ONDOL_HOME", raising=False)

    def run(*arguments: str) -> tuple[str, str]:
        cli.main(args=["ask", *arguments], prog_name="ondol", standalone_mode=False)
        seen = capsys.readouterr()
        return seen.out, seen.err

    return run


def test_an_answer_is_streamed_by_the_data_plane(served: Home, ask: Any) -> None:
    out, err = ask("writer", QUESTION, "--unit", "mina")
    assert ANSWER in out
    assert "a.md" in out
    assert "fake/model" in out
    assert "$0.000" in out
    assert "priced" in out
    assert "no data plane" not in err
    assert served.fake.requests[-1].body["stream"] is True
    assert served.fake.requests[-1].pieces > 1
    (row,) = [row for row in usage.rows(served.store, application="writer") if row.unit == "mina"]
    assert row.outcome == "ok", "booked before the end of the stream was sent"


def test_without_streaming_the_same_answer(served: Home, ask: Any) -> None:
    out, err = ask("writer", QUESTION, "--no-stream")
    assert ANSWER in out
    assert "no data plane" not in err
    assert not served.fake.requests[-1].body.get("stream")


def test_the_extractive_reader_says_what_it_is(ask: Any) -> None:
    out, err = ask("reader", QUESTION)
    assert "ondol model rollback" in out
    assert "extractive" in out
    assert "no data plane" not in err


def test_json_names_release_cost_and_trace(served: Home, ask: Any) -> None:
    answered = json.loads(ask("writer", QUESTION, "--json")[0])
    route = routes.get(served.store, "writer")
    assert route is not None
    assert answered["answer"] == ANSWER
    assert answered["release"] == route.stable
    assert answered["citations"][0]["document"] == "a.md"
    assert answered["cost_usd"] > 0
    assert len(answered["trace"]) == 32


def test_a_stream_that_breaks_in_the_middle_is_one_clear_error(served: Home, ask: Any) -> None:
    served.script.append(Fault("half_stream", text="one two three four"))
    with pytest.raises(errors.OndolError) as caught:
        ask("writer", QUESTION)
    assert caught.value.code.startswith("UPS")
    assert caught.value.message
    wait(lambda: usage.rows(served.store, application="writer")[0].outcome != "pending")
    row = usage.rows(served.store, application="writer")[0]
    assert row.outcome == "error"
    assert row.status == "estimated", "what was written before the break is booked"


def test_an_application_that_is_not_served(ask: Any) -> None:
    with pytest.raises(errors.NotFoundError, match="no application 'nobody'") as caught:
        ask("nobody", QUESTION)
    assert "release list" in caught.value.way_out


def test_an_empty_question_is_refused_by_the_data_plane(ask: Any) -> None:
    with pytest.raises(errors.OndolError, match="empty"):
        ask("reader", "   ")


def test_a_unit_may_be_written_in_any_script(served: Home, ask: Any) -> None:
    assert "ondol model rollback" in ask("reader", QUESTION, "--unit", "민아")[0]
    wait(lambda: any(row.unit == "민아" for row in usage.rows(served.store, application="reader")))


def test_answers_are_scored_as_they_are_given(served: Home, ask: Any) -> None:
    question = "모델을 롤백하는 명령은?"  # nobody else's: earlier answers may still be on their way into the log
    ask("writer", question)
    served.script.append("서울은 한국의 수도이며 강이 흐릅니다. [1]")
    ask("writer", question)

    def mine() -> list[Observation]:
        features = {"question": question}
        return [one for one in observations.of_service(served.store, "writer") if json.loads(one.features) == features]

    wait(lambda: len(mine()) == 2)
    answers = {json.loads(one.prediction)["answer"]: one for one in mine()}
    wrong, right = answers["서울은 한국의 수도이며 강이 흐릅니다. [1]"], answers[ANSWER]
    assert right.signals["faithfulness"] == 1.0
    assert wrong.signals["faithfulness"] == 0.0
    assert 0.0 <= right.signals["answer_relevancy"] <= 1.0
