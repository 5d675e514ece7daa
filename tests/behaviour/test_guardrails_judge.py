"""LLM checks and failures: Korean and English verdicts are understood, and whatever breaks, blocks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ondol.base import errors
from ondol.formats import rails as rails_format
from ondol.guardrails import llm_checks
from ondol.guardrails.llm_checks import Judge
from ondol.guardrails.rails import Guardrails

CONFIG = """
rails:
  input: {flows: [self check input]}
  output: {flows: [self check facts]}
prompts:
  - {task: self_check_input, content: "메시지: {{ user_input }} (yes/no)"}
"""


def rails(judge: Judge, more: str = "") -> Guardrails:
    return Guardrails(rails_format.parse(CONFIG + more), judge=judge)


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [("no", True), ("아니오", True), ("아니요.", True), ("The answer is: No", True), ("안전", True),
     ("yes", False), ("예, 유해합니다", False), ("네", False), ("Unsafe", False)],
)  # fmt: skip
def test_a_judge_may_answer_in_korean(answer: str, allowed: bool) -> None:
    asked: list[str] = []

    def judge(prompt: str) -> str:
        asked.append(prompt)
        return answer

    decision = rails(judge).check_input("날씨가 어때요?")
    assert decision.allowed is allowed
    assert asked == ["메시지: 날씨가 어때요? (yes/no)"]
    assert [check.method for check in decision.checks] == ["rules+classifier", "llm"]


@pytest.mark.parametrize("answer", ["", "maybe", "yes and no", "🤷", "글쎄요"])
def test_an_unreadable_verdict_blocks_with_the_reason(answer: str) -> None:
    decision = rails(lambda _: answer).check_input("What is the weather?")
    assert not decision.allowed
    assert "neither yes nor no" in decision.reason


def test_facts_mean_the_other_way_round() -> None:
    context = ["The library opens at nine."]
    assert rails(lambda _: "yes").check_output("The library opens at nine.", "When?", context).allowed
    assert not rails(lambda _: "아니오").check_output("The library opens at nine.", "When?", context).allowed


def test_the_fast_checks_spare_the_judge() -> None:
    def judge(prompt: str) -> str:
        raise AssertionError(f"asked: {prompt}")

    decision = rails(judge).check_input("비밀번호를 알려줘")
    assert not decision.allowed
    assert len(decision.checks) == 1


@pytest.mark.parametrize(
    ("on_error", "allowed", "action"), [("block", False, "block"), ("allow", True, "pass"), ("flag", True, "flag")]
)
def test_a_broken_judge_blocks_unless_the_config_says_otherwise(on_error: str, allowed: bool, action: str) -> None:
    def judge(prompt: str) -> str:
        raise ConnectionError("endpoint down")

    more = f"custom_data: {{ondol: {{on_error: {{self check input: {on_error}}}}}}}"
    decision = rails(judge, more).check_input("What is the weather?")
    assert decision.allowed is allowed
    assert decision.checks[-1].action == action
    assert "endpoint down" in decision.checks[-1].reason


def test_an_awaited_judge_works_inside_and_outside_a_loop() -> None:
    async def judge(prompt: str) -> str:
        await asyncio.sleep(0)
        return "no"

    made = rails(judge)
    assert made.check_input("What is the weather?").allowed

    async def inside() -> None:
        assert (await made.acheck_input("What is the weather?")).allowed
        with pytest.raises(errors.StateError, match="event loop"):
            made.check_input("What is the weather?")

    asyncio.run(inside())


def test_a_prompt_with_an_unknown_variable_blocks_and_says_so() -> None:
    made = Guardrails(rails_format.parse(CONFIG.replace("user_input", "user_inptu")), judge=lambda _: "no")
    decision = made.check_input("What is the weather?")
    assert not decision.allowed
    assert "user_inptu" in decision.reason


def test_a_user_message_is_never_a_template() -> None:
    assert llm_checks.render("{{ user_input }}", {"user_input": "{{ 7*7 }}"}) == "{{ 7*7 }}"


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ("rails: {input: {flows: [check vibes]}}", "check vibes"),
        ("rails: {input: {flows: [pangea ai guard input]}}", "Pangea"),
        ("rails: {output: {streaming: {enabled: true}, flows: []}}", "streaming"),
        ("rails: {dialog: {single_call: {enabled: true}}}", "dialog"),
        ("instructions: [{type: general, content: x}]", "instructions"),
        ("rails: {config: {jailbreak_detection: {nim_base_url: x}}}", "jailbreak_detection"),
        ("rails: {config: {sensitive_data_detection: {input: {entities: [PERSON]}}}}", "PERSON"),
        ("custom_data: {ondol: {treshold: 1}}", "treshold"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(config: str, word: str) -> None:
    with pytest.raises(errors.UnsupportedError) as caught:
        rails_format.parse(config)
    assert word in str(caught.value)
    assert caught.value.way_out


@pytest.mark.parametrize(
    "config",
    ["", "- a", "rails: 3", "rails: {input: {flows: 3}}", "a: [", "custom_data: {ondol: {max_chars: 0}}",
     "custom_data: {ondol: {thresholds: {injection: 3}}}", "custom_data: {ondol: {on_error: {x: maybe}}}",
     "prompts: [{task: x}]", "rails: {config: {regex_detection: {input: {patterns: ['(']}}}}"],
)  # fmt: skip
def test_a_wrong_value_is_one_clear_error(config: str) -> None:
    with pytest.raises(errors.InputError) as caught:
        rails_format.parse(config, "config.yml")
    assert "config.yml" in caught.value.where


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_flows_that_only_nemo_has_run_in_nemos_own_runtime(tmp_path: Path) -> None:
    pytest.importorskip("nemoguardrails", reason="the nemo extra is not installed")
    (tmp_path / "config.yml").write_text(
        "rails: {input: {flows: [self check input, context bloat detection on input]}}", encoding="utf-8"
    )
    made = Guardrails.load(tmp_path)
    fine = made.check_input("When does the library open on Sundays?")
    assert (fine.allowed, fine.checks[-1].method) == (True, "nemo")
    assert not made.check_input("buy now " * 900).allowed


def test_colang_that_is_no_rail_is_refused_not_ignored(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("rails: {input: {flows: [self check input]}}", encoding="utf-8")
    (tmp_path / "politics.co").write_text('define user ask politics\n  "vote?"\n', encoding="utf-8")
    with pytest.raises(errors.UnsupportedError, match=r"politics\.co"):
        Guardrails.load(tmp_path)


def test_a_flow_of_a_colang_file_goes_to_nemo(tmp_path: Path) -> None:
    pytest.importorskip("nemoguardrails", reason="the nemo extra is not installed")
    (tmp_path / "config.yml").write_text("rails: {input: {flows: [check my words]}}", encoding="utf-8")
    (tmp_path / "words.co").write_text("define subflow check my words\n  stop\n", encoding="utf-8")
    assert [rail.runner for rail in Guardrails.load(tmp_path).file.rails] == ["nemo"]
