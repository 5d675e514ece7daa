"""An A/B test of two prompts of one LLM application, decided by quality while cost is watched: everything real but
the LLM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from tests.behaviour.serving_tools import wait

from ondol.app import running as processes
from ondol.base import settings as settings_module
from ondol.base.settings import Settings
from ondol.cli import main as command_line
from ondol.formats import project as projects
from ondol.records.release import Release
from ondol.records.rollout import Route
from ondol.serving import application_release
from ondol.store import loads, rollouts, routes
from ondol.store.connection import Store
from ondol.testing.fake_llm import FakeLLM, Json, Reply

PROMPT = """
name: qa
version: "1.0.0"
template: |
  {style}
  Question: {{question}}
input_variables: [question]
metadata: {{temperature: 0}}
"""
PROJECT = """
name: t
llms: {{fake: {{base_url: {url}, price: {{input: 1, output: 2}}, timeout: 120}}}}
prompts: prompts/
applications:
  support: {{llm: fake/model, prompt: prompts/qa.yaml}}
"""


def answer(request: Json) -> Reply:
    """The short prompt is answered well and cheaply, the long one at length and wrongly every other time."""
    text = str(request["messages"])
    number = int(text.split("number ")[1].split(" ")[0])
    if "one sentence" in text:
        return Reply("right", output_tokens=5)
    return Reply("right, at length" if number % 2 else "wrong, at length", output_tokens=60)


@dataclass
class Home:
    """A whole Ondol that serves one application."""

    folder: Path
    settings: Settings
    store: Store

    def release(self, style: str) -> Release:
        """Pin the application with a prompt of this style."""
        (self.folder / "prompts" / "qa.yaml").write_text(PROMPT.format(style=style), encoding="utf-8")
        project = projects.load(self.folder)
        return application_release.build_release(
            self.store, self.settings, "support", project.applications["support"], project.llms
        )

    def ask(self, number: int) -> str:
        """Ask as a user, post what the answer was worth, and return the arm that gave it."""
        body = {
            "model": "support",
            "user": f"user-{number}",
            "messages": [{"role": "user", "content": f"number {number} please"}],
        }
        given = httpx.post(f"{self.settings.data.url}/openai/v1/chat/completions", json=body, timeout=120)
        assert given.status_code == 200, given.text
        right = "right" in given.json()["choices"][0]["message"]["content"]
        score = {"request": given.headers["x-request-id"], "name": "quality", "value": float(right)}
        posted = httpx.post(f"{self.settings.data.url}/ondol/v1/metrics", json={"metrics": [score]}, timeout=120)
        assert posted.json()["new"] == 1, posted.text
        return given.headers["x-ondol-arm"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    (tmp_path / "prompts").mkdir()
    with FakeLLM(answer) as fake:
        (tmp_path / "ondol.yaml").write_text(PROJECT.format(url=fake.url), encoding="utf-8")
        (tmp_path / "prompts" / "qa.yaml").write_text(PROMPT.format(style="Explain at length."), encoding="utf-8")
        settings = settings_module.load(tmp_path, {})
        found = processes.ensure_running(settings, any_port=True)
        settings = replace(settings, control=found.control, data=found.data)
        try:
            with Store(settings.database) as store:
                yield Home(tmp_path, settings, store)
        finally:
            processes.stop(settings)


@pytest.mark.slow
def test_the_better_and_cheaper_of_two_prompts_is_promoted_by_itself(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = home.release("Explain at length.")
    routes.put(home.store, Route("support", "application", first.digest))
    second = home.release("Answer in one sentence.")
    assert first.digest != second.digest
    monkeypatch.chdir(home.folder)
    monkeypatch.delenv("ONDOL_HOME", raising=False)

    def ondol(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            command_line.main(list(arguments))
        said = capsys.readouterr()
        assert not ended.value.code, said.err
        return said.out

    ondol(
        "rollout", "start", "support", second.digest, "--strategy", "ab", "--metric", "quality", "--metric", "cost",
        "--decide-on", "quality", "--min-requests", "60", "--alpha", "0.05",
    )  # fmt: skip
    started = routes.get(home.store, "support")
    assert started is not None
    routes.put(home.store, replace(started, salt="salt"))  # units are split alike in every run
    wait(lambda: any(one.release == second.digest and one.state == "Loaded" for one in loads.every(home.store)))
    number = 0
    arms: list[str] = []
    with ThreadPoolExecutor(8) as pool:
        while (route := routes.get(home.store, "support")) and route.rollout and number < 1600:
            arms += pool.map(home.ask, range(number, number + 80))
            number += 80
    assert {"stable", "candidate"} <= set(arms)
    wait(lambda: _stable(home.store) == second.digest)
    (rollout,) = rollouts.of_service(home.store, "support")
    assert rollout.state == "promoted"
    assert rollout.reason.startswith("quality better")
    shown = ondol("rollout", "status", "support")
    for said in ("support:", "ab, promoted", "quality", "cost", "e-value: better"):
        assert said in shown
    found = json.loads(ondol("rollout", "status", "support", "--json"))[0]["findings"]
    cost = next(one for one in found if one["metric"] == "cost")
    assert cost["candidate"] < cost["stable"] / 2


def _stable(store: Store) -> str:
    route = routes.get(store, "support")
    return route.stable if route else ""
