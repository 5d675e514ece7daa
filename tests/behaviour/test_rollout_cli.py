"""`ondol release` and `ondol rollout`, as a user runs them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ondol.cli import main as command_line
from ondol.records.release import ModelManifest
from ondol.records.rollout import Observation, Route
from ondol.rollout import split
from ondol.store import loads, observations, releases, routes
from ondol.store.connection import Store


@dataclass
class Shell:
    """Runs commands in one home."""

    store: Store
    stable: str
    candidate: str
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            command_line.main(list(arguments))
        said = self.capture.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    def json(self, *arguments: str) -> Any:
        code, out, _ = self(*arguments, "--json")
        assert code == 0
        return json.loads(out)

    def route(self) -> Route:
        """Return the route as it is, but that units are split alike in every run."""
        route = routes.get(self.store, "delay")
        assert route is not None
        return replace(route, salt="salt")

    def traffic(self, n: int, broken: bool) -> None:
        route = self.route()
        arms = {f"r{index}": split.assign(route, f"r{index}") for index in range(n)}
        observations.append(
            self.store,
            [
                Observation(name, time.time(), "delay", "d", arm, "", 500 if broken and arm == "candidate" else 200,
                            1.0, route.rollout, weight=route.weight)
                for name, arm in arms.items()
            ],
        )  # fmt: skip


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    monkeypatch.setenv("ONDOL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    with Store(tmp_path / "home" / "ondol.db") as store:
        stable, candidate = (
            releases.put(store, "delay", ModelManifest(name, f"file:///{name}")).digest for name in "ab"
        )
        routes.put(store, Route("delay", "model", stable))
        yield Shell(store, stable, candidate, capsys)


def test_a_trial_from_start_to_promotion_by_hand_and_back(shell: Shell) -> None:
    short = shell.candidate.removeprefix("sha256:")[:8]
    started = shell.json("rollout", "start", "delay", short, "--steps", "20,100", "--metric", "error_rate")
    assert (started["state"], started["policy"]["steps"]) == ("progressing", [20.0, 100.0])
    again = shell.json("rollout", "start", "delay", short, "--steps", "20,100", "--metric", "error_rate")
    assert again["id"] == started["id"]
    code, _, err = shell("rollout", "start", "delay", short, "--strategy", "ab")
    assert (code, "CON-030" in err) == (1, True)  # other rules than those it is tried by are not ignored
    roles = {one["digest"]: one["role"] for one in shell.json("release", "list", "delay")}
    assert roles == {shell.stable: "serving", shell.candidate: "candidate 20 %"}
    code, _, err = shell("rollout", "promote", "delay")
    assert code == 1
    assert "not loaded" in err
    loads.put(shell.store, "delay", shell.candidate, "Loaded")
    assert shell("rollout", "promote", "delay", "--reason", "확인함")[0] == 0
    assert shell.json("release", "show", short)["decisions"][0]["reason"] == "확인함"
    code, out, _ = shell("release", "rollback", "delay")
    assert (code, "is served by" in out) == (0, True)
    assert shell.route().stable == shell.stable


def test_status_shows_the_evidence_and_json_has_all_of_it(shell: Shell) -> None:
    shell("rollout", "start", "delay", shell.candidate, "--metric", "error_rate")
    shell.traffic(1000, broken=True)
    code, out, _ = shell("rollout", "status", "delay")
    assert code == 0
    for said in ("error_rate", "100 %", "rolled back at", "→ roll_back: errors 100 % in the candidate"):
        assert said in out
    (status,) = shell.json("rollout", "status")
    assert status["findings"][0]["harm"] > status["findings"][0]["harm_at"]
    assert status["facts"]["stable_requests"] + status["facts"]["candidate_requests"] == 1000
    assert shell("rollout", "abort", "delay", "--reason", "enough")[0] == 0
    (status,) = shell.json("rollout", "status", "delay")
    assert (status["rollout"]["state"], status["reason"]) == ("aborted", "enough")
    assert status["decision"].startswith("decision-")


def test_a_number_is_shown_with_what_it_counts_up_to(shell: Shell) -> None:
    shell("rollout", "start", "delay", shell.candidate, "--metric", "output_tokens", "--steps", "50,100")
    route = shell.route()
    served = []
    for index in range(200):
        arm = split.assign(route, f"r{index}")
        one = Observation(f"r{index}", time.time(), "delay", "d", arm, "", 200, 1.0, route.rollout, weight=50.0)
        served.append(replace(one, signals={"output_tokens": 60.0 if arm == "candidate" else 3.0}))
    observations.append(shell.store, served)
    code, out, _ = shell("rollout", "status", "delay")
    assert code == 0
    shown = {line[:22].strip(): line[22:].split() for line in out.splitlines()}
    assert (shown["candidate"], shown["stable"], shown["numbers count up to"]) == (["60"], ["3"], ["9"])
    assert f"/rollouts/{route.rollout}" in out


def test_an_empty_home_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONDOL_HOME", str(tmp_path / "other"))
    for arguments, said in ((["release", "list"], "ondol demo"), (["rollout", "status"], "ondol rollout start")):
        with pytest.raises(SystemExit) as ended:
            command_line.main(arguments)
        assert (ended.value.code, said in capsys.readouterr().out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["rollout", "status", "nobody"], 1, "'nobody'"),
        (["rollout", "start", "delay", "ffffffff"], 1, "'ffffffff'"),
        (["rollout", "start", "delay", "ffffffff", "--steps", "5,x"], 2, "'5,x'"),
        (["rollout", "abort", "delay"], 1, "no candidate on trial"),
        (["release", "rollback", "delay"], 1, "no earlier release"),
        (["release", "show", "12345678"], 1, "'12345678'"),
    ],
)
def test_mistakes_get_one_clear_message(shell: Shell, arguments: list[str], code: int, said: str) -> None:
    ended, out, err = shell(*arguments)
    assert (ended, said in err, out) == (code, True, "")


def test_an_a_b_test_of_three_on_the_command_line(shell: Shell) -> None:
    third = releases.put(shell.store, "delay", ModelManifest("c", "file:///c")).digest
    for digest in (shell.candidate, third):
        loads.put(shell.store, "delay", digest, "Loaded")
    started = shell.json(
        "rollout", "start", "delay", shell.candidate, "--strategy", "ab", "--arm", f"third={third}", "--metric",
        "revenue:higher", "--unit", "cookie:session",
    )  # fmt: skip
    assert (started["policy"]["decide_on"], started["policy"]["steps"]) == ("revenue:higher", [66.67])
    route = shell.route()
    assert route.unit == "cookie:session"
    roles = {one["digest"]: one["role"] for one in shell.json("release", "list", "delay")}
    assert (roles[shell.candidate], roles[third]) == ("candidate 33.335 %", "third 33.335 %")
    observations.append(
        shell.store,
        [
            Observation(f"r{index}", time.time(), "delay", "d", split.assign(route, f"r{index}"), f"r{index}", 200, 1.0,
                        route.rollout, weight=route.weight, signals={"revenue": 5.0})
            for index in range(900)
        ],
    )  # fmt: skip
    _, out, _ = shell("rollout", "status", "delay")
    assert "third revenue:higher" in out
    assert "ab, 66.67 %" in out
    assert "e-value: better" in out
    assert shell.json("rollout", "promote", "delay", "--variant", "third")["evidence"]["route"]["stable"] == third
    code, _, err = shell("rollout", "start", "delay", shell.candidate, "--strategy", "ab", "--arm", "third")
    assert (code, "NAME=RELEASE" in err) == (2, True)


def test_a_shadow_on_the_command_line(shell: Shell) -> None:
    code, out, _ = shell("rollout", "start", "delay", shell.candidate, "--strategy", "shadow")
    assert (code, "answers copies" in out) == (0, True)
    assert {one["role"] for one in shell.json("release", "list", "delay")} == {"serving", "candidate of copies"}
    _, out, _ = shell("rollout", "status", "delay")
    assert "shadow, copies only, step 1 of 1" in out
