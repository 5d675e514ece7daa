"""Act two through the command line, and the assistant through OpenAI's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.behaviour import demo_tools as tools
from tests.behaviour.demo_tools import Demo

from ondol.store import rollouts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
Played = tuple[Demo, dict[str, Any]]
CANDIDATES = ("smaller chunks", "stale index", "looser threshold", "three passages")


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Act two, played to its end once."""
    demo = tools.new(tmp_path_factory.mktemp("assistant"))
    try:
        yield demo, demo.json("demo", "--act", "assistant")
    finally:
        demo.stop()


def client(demo: Demo) -> Any:
    """Return OpenAI's client, as anybody would make it."""
    import openai

    data = next(one["url"] for one in demo.json("status")["processes"] if one["name"] == "data")
    return openai.OpenAI(base_url=f"{data}/openai/v1", api_key="none", max_retries=0, timeout=60)


def test_every_candidate_has_a_verdict_that_is_on_record(assistant: Played) -> None:
    demo, said = assistant
    verdicts = {one["what"]: one for one in said["happened"]}
    assert verdicts["first release"]["verdict"] == "pass"
    with demo.store() as store:
        gates = rollouts.decisions(store, "assistant", "gate", limit=100)
        ended = {(one.state, one.reason) for one in rollouts.of_service(store, "assistant")}
    for name in CANDIDATES:
        one = verdicts[name]
        if one["verdict"].startswith("gate: "):
            assert one["verdict"].removeprefix("gate: ") in {each.verdict for each in gates}
        else:
            assert (one["verdict"], one["why"]) in ended
    stale = verdicts["stale index"]["verdict"]
    assert stale.startswith("gate: ") or stale == "rolled_back", stale  # a third of the documents is missing


def test_every_decision_is_made_again_from_its_evidence(assistant: Played) -> None:
    with assistant[0].store() as store:
        decided = rollouts.decisions(store, limit=1000)
    assert len([one for one in decided if one.action == "gate"]) >= 5
    for one in decided:
        assert tools.again(one) in ("-", one.verdict)


def test_openais_client_gets_an_answer(assistant: Played) -> None:
    openai = client(assistant[0])
    answer = openai.chat.completions.create(
        model="assistant", messages=[{"role": "user", "content": "카나리는 어떻게 판정하나요?"}]
    )
    assert answer.choices[0].finish_reason == "stop"
    assert len(answer.choices[0].message.content) > 20
    assert "assistant" in {one.id for one in openai.models.list()}
    openai.close()


def test_openais_client_streams(assistant: Played) -> None:
    openai = client(assistant[0])
    question = [{"role": "user", "content": "What does a release of an LLM application pin?"}]
    stream = openai.chat.completions.create(model="assistant", messages=question, stream=True)
    pieces = [one.choices[0].delta.content or "" for one in stream if one.choices]
    whole = openai.chat.completions.create(model="assistant", messages=question)
    assert "".join(pieces).strip() == whole.choices[0].message.content.strip()
    openai.close()


def test_a_second_run_is_on_record(assistant: Played) -> None:
    demo, said = assistant
    shown = {one["what"]: one for one in demo.json("demo", "--act", "assistant")["happened"]}
    before = {one["what"]: one for one in said["happened"]}
    for name in CANDIDATES:
        assert shown[name]["on_record"] is True
        assert (shown[name]["verdict"], shown[name]["why"]) == (before[name]["verdict"], before[name]["why"])
