"""Every page in a real browser: it has its content, in both languages, and no console error."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.browser import seed_monitoring
from tests.conftest import ControlProcess

from ondol.records.kfp import RecurringRun, Trigger
from ondol.records.pipeline import Artifact, PipelineRun, TaskRun
from ondol.records.release import ModelManifest
from ondol.records.rollout import Decision, JudgePolicy, Observation, Route
from ondol.rollout import controller, split
from ondol.store import kfp, loads, observations, registry_events, releases, rollouts, routes, runs
from ondol.store.connection import Store

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]
PATIENCE = 120_000.0  # milliseconds
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]


@dataclass(frozen=True)
class Seeded:
    """What the pages are about."""

    service: str
    rollout: str
    decision: str
    gate: str
    release: str
    run: str


def _release(store: Store, service: str, version: str) -> str:
    manifest = ModelManifest("sha256:" + version * 64, f"models:/{service}/{version}", "sklearn", service, version)
    return releases.put(store, service, manifest).digest


def _unit(route: Route, prefix: str, arm: str) -> str:
    """Return a unit that comes to an arm: chance must not draw a split that the judge calls broken."""
    return next(unit for number in count() if split.assign(route, unit := f"{prefix}-{number}") == arm)


def _rollout(store: Store, service: str) -> str:
    stable, candidate = _release(store, service, "1"), _release(store, service, "2")
    routes.put(store, Route(service, "model", stable))
    for digest in (stable, candidate):
        loads.put(store, service, digest, "Loaded")
    rollout = controller.start(store, service, candidate)
    route = routes.get(store, service)
    assert route is not None
    chance = random.Random(7)
    batch = []
    for number in range(2500):
        arm = "stable" if number % round(100 / route.weight) else "candidate"
        unit = _unit(route, f"customer-{number}", arm)
        bad = chance.random() < (0.2 if arm == "candidate" else 0.012)
        score = 0.75 + chance.random() / 5 - (0.15 if arm == "candidate" else 0)
        digest = candidate if arm == "candidate" else stable
        one = Observation(
            f"{service}-{number}", time.time(), service, digest, arm, unit, 500 if bad else 200, 2.0, rollout.id,
            signals={"quality": score}, weight=route.weight,
        )  # fmt: skip
        batch.append(one)
    observations.append(store, batch)
    controller.tick(store)
    return rollout.id


def _run(store: Store, folder: Path) -> str:
    began = time.time() - 90
    (folder / "step.log").write_text("읽은 행: 336,776\ntrained in 2.1 s\n", encoding="utf-8")
    steps = [("load", 0.0, 1.2), ("observe", 0.1, 0.9), ("join", 1.2, 2.0), ("train", 2.0, 4.1), ("evaluate", 4.1, 4.6)]
    tasks = tuple(
        TaskRun(
            name,
            "succeeded",
            {"out": Artifact("out", "system.Metrics" if name == "evaluate" else "system.Dataset", "file:///x", "/x",
                             "sha256:" + "c" * 64, {"roc_auc": 0.734})},
            started_at=began + start,
            ended_at=began + end,
            cached=name == "observe",
            log_path=str(folder / "step.log"),
        )
        for name, start, end in steps
    )  # fmt: skip
    run = PipelineRun("run-browser", "flight-delays", "succeeded", {"trees": 100}, tasks, began, began + 4.6, "p.py")
    runs.put(store, run)
    for task in tasks:
        runs.put_task(store, run.id, task)
    return run.id


@pytest.fixture(scope="module")
def seeded(control: ControlProcess, tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    store, service = control.store, "flight-delay"
    rollout = _rollout(store, service)
    gate = Decision(
        "decision-gate", time.time() - 30, service, "gate", "pass", "roc_auc 0.734 against 0.721: +0.013",
        {"run": "run-browser", "rules": [{"name": "roc_auc", "verdict": "pass", "low": 0.008}], "data_check": None},
    )  # fmt: skip
    rollouts.decide(store, gate)
    seq = registry_events.begin(store, service, "alias", "champion", "1", "2", "kim from 127.0.0.1")
    registry_events.finish(store, seq, "done")
    made = next(one for one in rollouts.decisions(store, service) if one.evidence.get("findings"))
    run = _run(store, tmp_path_factory.mktemp("run"))
    kfp.add(store, RecurringRun("rec-browser", "default", "nightly", Trigger(cron="0 0 3 * * *"), enabled=False))
    return Seeded(service, rollout, made.id, gate.id, releases.of_name(store, service)[0].digest, run)


class Browser:
    """One tab, and what its console complained about."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self._heard(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _heard(self, kind: str, text: str) -> None:
        if kind == "error":
            self.complaints.append(text)

    def open(self, path: str) -> str:
        """Open a page of ours and return its text."""
        answer = self.page.goto(self.url + path, wait_until="load")
        assert answer.status == 200, f"{path}: {answer.status}"
        return str(self.page.inner_text("body"))


@pytest.fixture
def browser(control: ControlProcess) -> Iterator[Browser]:
    with playwright_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        page = chromium.new_page(viewport={"width": 1200, "height": 900}, locale="en-US")
        page.set_default_timeout(PATIENCE)
        yield Browser(page, control.url)
        chromium.close()


def test_every_page_shows_its_content(browser: Browser, seeded: Seeded) -> None:
    expected = {
        "/": ["Overview", seeded.service, "Recent decisions", "flight-delays"],
        "/services": [seeded.service, "v1"],
        f"/services/{seeded.service}": ["Error rate", "rolled back"],
        "/rollouts": [seeded.service, "evidence"],
        f"/rollouts/{seeded.rollout}": ["Error rate", "Loss of labelled requests", "error_rate", "Evidence for harm"],
        "/decisions": ["gate", "roll back", "roc_auc 0.734"],
        f"/decisions/{seeded.decision}": ["error_rate", "n=", "This decision as JSON"],
        f"/decisions/{seeded.gate}": ["rules", "roc_auc", "pass"],
        "/releases": [seeded.service, "Serving"],
        f"/releases/{seeded.release}": [seeded.release, f"models:/{seeded.service}/2"],
        "/runs": ["flight-delays", "succeeded", "nightly", "0 0 3 * * *", "switched off"],
        f"/runs/{seeded.run}": ["Timeline", "train", "trees", "cached"],
        f"/runs/{seeded.run}/steps/train": ["읽은 행: 336,776"],
        "/history": ["champion", "1 → 2", "kim from 127.0.0.1"],
    }
    for path, texts in expected.items():
        shown = browser.open(path)
        for text in texts:
            assert text in shown, f"{path} lacks {text!r}"
        wide = browser.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{path} scrolls sideways"
    assert browser.complaints == []


def test_the_plots_have_both_arms(browser: Browser, seeded: Seeded) -> None:
    browser.open(f"/rollouts/{seeded.rollout}")
    for arm in ("stable", "candidate"):
        assert browser.page.locator(f"svg.chart polyline.{arm}").count() == 2
    assert browser.page.locator("svg.chart").first.bounding_box()["width"] > 300


def test_korean_by_choice_and_it_stays(browser: Browser, seeded: Seeded) -> None:
    assert "서비스" not in browser.open("/")
    browser.page.get_by_text("한국어").click()
    browser.page.get_by_text("최근 판정").first.wait_for()
    shown = browser.open(f"/rollouts/{seeded.rollout}")
    assert "악화의 근거" in shown
    assert "롤백" in shown
    assert browser.page.evaluate("document.documentElement.lang") == "ko"
    assert browser.complaints == []


def test_korean_by_the_browsers_own_language(control: ControlProcess, seeded: Seeded) -> None:
    assert seeded.service
    with playwright_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        page = chromium.new_page(locale="ko-KR")
        page.set_default_timeout(PATIENCE)
        page.goto(control.url)
        assert page.inner_text("h1") == "개요"
        chromium.close()


def test_narrow_and_dark(browser: Browser, seeded: Seeded) -> None:
    browser.page.set_viewport_size({"width": 390, "height": 800})
    browser.page.emulate_media(color_scheme="dark")
    for path in ("/", f"/rollouts/{seeded.rollout}", f"/runs/{seeded.run}"):
        browser.open(path)
        assert browser.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
    background = browser.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, background.strip("rgb()").split(","))) < 60


def test_mlflows_own_ui_works_under_our_door(browser: Browser, control: ControlProcess, seeded: Seeded) -> None:
    assert seeded.run
    failed: list[str] = []
    browser.page.on("response", lambda answer: failed.append(answer.url) if answer.status >= 400 else None)
    browser.page.goto(f"{control.url}/mlflow/#/experiments")
    browser.page.get_by_text("Default").first.wait_for()
    browser.page.goto(f"{control.url}/mlflow/#/models")
    browser.page.get_by_text("Model").first.wait_for()
    # MLflow's page asks for the user, whom only its own authentication would know.
    assert [url for url in failed if not url.endswith("/users/current")] == []


def test_an_unknown_page_is_a_page(browser: Browser) -> None:
    answer = browser.page.goto(f"{browser.url}/decisions/none")
    assert answer.status == 404
    assert "no decision 'none'" in browser.page.inner_text("main")
    answer = browser.page.goto(f"{browser.url}/nowhere")
    assert answer.status == 404


def test_the_json_of_a_decision_is_one_url(browser: Browser, seeded: Seeded) -> None:
    browser.open(f"/decisions/{seeded.decision}")
    with browser.page.expect_navigation():
        browser.page.get_by_text("This decision as JSON").click()
    body = json.loads(browser.page.inner_text("body"))
    assert body["id"] == seeded.decision
    assert body["evidence"]["findings"]


def test_a_rollouts_evidence_is_drawn_as_it_grew(browser: Browser, seeded: Seeded) -> None:
    text = browser.open(f"/rollouts/{seeded.rollout}")
    assert "Evidence on its way to a decision" in text
    assert "error_rate (%): candidate − stable, 95 % at all times" in text
    drawn = browser.page.locator("svg.chart")
    assert drawn.count() >= 4  # evidence, two differences, error rate
    assert browser.page.locator("svg.chart polyline.harm").count() == 1
    assert browser.page.locator("svg.chart polygon.band").count() == 2
    box = browser.page.locator("svg.chart polygon.band").first.bounding_box()
    assert box["width"] > 300
    assert browser.complaints == []


def test_an_a_b_test_of_three_shows_every_arm(browser: Browser, control: ControlProcess) -> None:
    store, service = control.store, "three-arms"
    first, second, third = (_release(store, service, version) for version in "123")
    routes.put(store, Route(service, "model", first))
    policy = JudgePolicy(
        strategy="ab", steps=(66.0,), metrics=("error_rate", "quality"), decide_on="quality", margin=0.03
    )
    rollout = controller.start(store, service, second, policy, {"short": third})
    route, chance = routes.get(store, service), random.Random(3)
    assert route is not None
    means = {"stable": 0.6, "candidate": 0.6, "short": 0.66}
    batch = []
    for number in range(2400):
        arm = list(means)[number % 3]
        unit = _unit(route, f"u{number}", arm)
        score = min(max(chance.gauss(means[arm], 0.15), 0.0), 1.0)
        batch.append(
            Observation(f"{service}-{number}", time.time(), service, first, arm, unit, 200, 2.0, rollout.id,
                        signals={"quality": score}, weight=route.weight)
        )  # fmt: skip
    observations.append(store, batch)
    text = browser.open(f"/rollouts/{rollout.id}")
    for said in ("short quality: candidate − stable", "strategy ab", "short"):
        assert said in text
    assert browser.page.locator("svg.chart polygon.band").count() == 4
    assert browser.complaints == []
    assert "복제" not in browser.open(f"/rollouts/{rollout.id}?lang=ko")


def test_what_is_watched_done_and_told(browser: Browser, control: ControlProcess) -> None:
    service = "watched"
    seed_monitoring.seed(control.store, service)
    expected = {
        "/monitoring": ["requests per hour", "degraded", "columns drifted in 2,000 requests"],
        f"/monitoring/{service}": [
            "Drift by column",
            "wind_gust",
            "in each of 24 windows",
            "Loss of labelled requests",
        ],
        "/loop": ["Signals that nobody answers yet", "labels of October", "Retrainings", "better by 0.0093", "drift"],
        "/alerts": ["slack-1f2e3d4c", "the data plane (process 4711) died", "holiday season", "critical"],
    }
    for path, texts in expected.items():
        shown = browser.open(path)
        for text in texts:
            assert text in shown, f"{path} lacks {text!r}"
        assert browser.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
    browser.open(f"/monitoring/{service}")
    assert browser.page.locator("svg.spark polyline").count() == len(seed_monitoring.COLUMNS) + 1
    first = browser.page.locator("h2:has-text('Drift by column') ~ .card figcaption").first.inner_text()
    assert first.startswith(("temp", "humid"))  # what drifts stands first
    assert "시간당 요청" in browser.open(f"/monitoring/{service}?lang=ko")
    browser.page.set_viewport_size({"width": 390, "height": 800})
    for path in expected:
        browser.open(path)
        assert browser.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
    assert browser.page.goto(f"{browser.url}/monitoring/nobody").status == 404
