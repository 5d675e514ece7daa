"""Evaluating answers: deterministic scorers, a judge over HTTP, suites, reports, and the guide's own dictionary."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ondol
from ondol.base import errors
from ondol.evaluation import judge as judging
from ondol.evaluation import report as reports
from ondol.evaluation import retrieval_metrics, suite, text_metrics
from ondol.evaluation.api import run_anywhere
from ondol.formats import eval_suite
from ondol.llm import registry
from ondol.records.evaluation import EvalSample
from ondol.testing.fake_llm import FakeLLM

_GUIDE = Path(__file__).resolve().parents[2].parent / "shared" / "guide"

KOREAN = EvalSample(
    id="ko",
    question="API 인증 방법은 무엇인가요?",
    answer="API는 OAuth2 Bearer 토큰으로 인증합니다. [1]",
    contexts=("모든 API는 OAuth2 Bearer 토큰으로 인증합니다.", "오늘 점심은 비빔밥입니다."),
    ground_truth="OAuth2 Bearer 토큰",
    documents=("auth.md", "lunch.md"),
    gold=(("auth.md",),),
)
WRONG = EvalSample(
    id="wrong",
    question="How long is the warranty?",
    answer="The warranty lasts ninety years and covers dragons.",
    contexts=("The warranty lasts two years.",),
    ground_truth="two years",
    documents=("warranty.md",),
    gold=(("warranty.md",),),
)
ABSTAINED = EvalSample(
    id="none", question="몽골의 수도는?", answer="문서에서 정보를 찾을 수 없습니다.", answerable=False
)


def values(sample: EvalSample, metrics: list[str]) -> dict[str, float | None]:
    result = run_anywhere(lambda: suite.measure_all([sample], metrics))
    return {one.metric: one.value for one in result[0].values}


def test_a_supported_answer_scores_and_an_invented_one_does_not() -> None:
    names = ["faithfulness", "answer_correctness", "context_precision", "context_recall", "recall@1", "mrr"]
    good, bad = values(KOREAN, names), values(WRONG, names)
    assert good == dict.fromkeys(names, 1.0)
    assert bad["faithfulness"] == 0.0
    assert (bad["answer_correctness"] or 0) < 0.5
    assert bad["recall@1"] == 1.0


def test_saying_nothing_is_right_exactly_when_there_is_no_answer() -> None:
    names = ["refusal", "answer_correctness", "faithfulness", "answer_relevancy", "recall@5"]
    assert values(ABSTAINED, names) == {
        "refusal": 1.0, "answer_correctness": 1.0, "faithfulness": None, "answer_relevancy": 0.0, "recall@5": None,
    }  # fmt: skip
    silent = EvalSample(id="x", question="q?", answer="I could not find this.", ground_truth="42")
    assert values(silent, ["refusal", "answer_correctness"]) == {"refusal": 0.0, "answer_correctness": 0.0}


@given(st.text(max_size=200), st.text(max_size=200), st.lists(st.text(max_size=80), max_size=3))
def test_no_text_gives_nan_or_leaves_the_unit_interval(answer: str, truth: str, contexts: list[str]) -> None:
    sample = EvalSample(id="x", question="?", answer=answer, ground_truth=truth, contexts=tuple(contexts))
    for measure in (
        text_metrics.faithfulness, text_metrics.answer_relevancy, text_metrics.context_precision,
        text_metrics.context_recall, text_metrics.answer_correctness, text_metrics.refusal,
    ):  # fmt: skip
        value = measure(sample).value
        assert value is None or 0.0 <= value <= 1.0


def test_gold_passages_with_alternatives_count_once() -> None:
    sample = EvalSample(
        id="x", question="?", documents=("other.md", "ko/a.md"), contexts=("…", "답은 여기"),
        gold=(("en/a.md#answer", "ko/a.md#답은"), ("b.md",)),
    )  # fmt: skip
    assert retrieval_metrics.measure("recall@5", sample).value == 0.5
    assert retrieval_metrics.measure("recall@1", sample).value == 0.0
    assert retrieval_metrics.measure("mrr", sample).value == 0.5


def guide_dictionary() -> dict[str, Any]:
    pages = sorted(_GUIDE.glob("*.txt")) if _GUIDE.is_dir() else []
    if not pages:
        pytest.skip("the guide is not beside the repository")
    block = re.search(r"eval_data = (\{.*?\n\})", pages[0].read_text(encoding="utf-8"), re.DOTALL)
    assert block
    data: dict[str, Any] = ast.literal_eval(block.group(1))
    return data


def test_the_guides_ragas_dictionary_gives_the_suites_numbers() -> None:
    data = guide_dictionary()
    result = ondol.evaluate(data)
    assert set(result) == {"faithfulness", "answer_relevancy", "context_precision", "context_recall"}
    assert repr(result).startswith("{'faithfulness'")
    assert len(result.to_pandas()) == 2
    samples = eval_suite.from_rows(eval_suite.columns_to_rows(data), "guide")
    names = ["faithfulness", "context_precision", "context_recall"]
    through_suite = run_anywhere(lambda: suite.run("guide", samples, names))
    assert {score.name: score.value for score in through_suite.scores} == {name: result[name] for name in names}


def test_ragas_own_metric_objects_and_a_dataset_are_taken() -> None:
    datasets = pytest.importorskip("datasets")
    data = {
        "user_input": ["q?"],
        "response": ["two years"],
        "retrieved_contexts": [["two years"]],
        "reference": ["two"],
    }

    class Faithfulness:
        name = "faithfulness"

    assert ondol.evaluate(datasets.Dataset.from_dict(data), [Faithfulness()])["faithfulness"] == 1.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"answer": "a"}], "without a question"),
        ([{"question": "q", "anwser": "a"}], "'anwser'"),
        ([{"question": "q", "contexts": "text"}], "row 1"),
        ([{"id": "1", "question": "q"}, {"id": "1", "question": "r"}], "twice"),
        (["q"], "mapping"),
    ],
)
def test_wrong_rows_are_named(rows: list[Any], message: str) -> None:
    with pytest.raises(errors.InputError) as caught:
        eval_suite.from_rows(rows, "set.jsonl")
    assert message in f"{caught.value.message} {caught.value.where}"


def test_a_suite_file_is_read_and_an_unknown_metric_is_refused(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "q?", "answers": [], "answer": "no"}\n\n', encoding="utf-8")
    (tmp_path / "s.yaml").write_text("name: s\ndataset: q.jsonl\nmetrics: [refusal]\n", encoding="utf-8")
    spec = eval_suite.load(tmp_path / "s.yaml")
    assert not spec.samples[0].answerable
    with pytest.raises(errors.UnsupportedError, match="'fluency'"):
        suite.check_metrics(["fluency"])
    (tmp_path / "bad.jsonl").write_text('{"question": "q"}\n{"question"', encoding="utf-8")
    with pytest.raises(errors.InputError) as caught:
        eval_suite.read_jsonl(tmp_path / "bad.jsonl")
    assert caught.value.where.endswith("bad.jsonl:2")


def test_reports_are_escaped_and_read_back(tmp_path: Path) -> None:
    evil = EvalSample(id="x", question="<script>alert(1)</script>", answer="</pre><b>", ground_truth="x")
    report = run_anywhere(lambda: suite.run("<i>", [evil, KOREAN], ["answer_correctness", "refusal"]))
    reports.write(report, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "</pre><b>" not in page
    assert "answer_correctness" in page
    reports.write(report, tmp_path / "r.json")
    assert reports.read(tmp_path / "r.json") == report
    assert [one.difference for one in suite.compare(report, report)] == [0.0, 0.0]


class Verdicts:
    """What a judge says, by what it is asked; counts the calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, body: dict[str, Any]) -> str:
        self.calls += 1
        asked = str(body["messages"][-1]["content"])
        if "Split the answer" in asked:
            return 'Sure!\n```json\n{"statements": ["The warranty lasts ninety years."]}\n```'
        if "For every s" in asked:
            return '{"verdicts": [{"supported": false, "reason": "the context says two years"}]}'
        if "Was this context useful" in asked:
            return '{"useful": true, "reason": "it has the number"}'
        return '{"score": 0, "reason": "wrong number"}'


def open_judge(server: FakeLLM, cache: judging.Cache | None = None, timeout: float = 20) -> judging.Judge:
    spec = registry.parse({"model": "judge", "base_url": server.url})
    model = registry.open_model(spec)
    assert model is not None
    return judging.Judge(model, cache=cache, timeout=timeout)


_JUDGED = ["faithfulness", "context_precision", "context_recall", "answer_correctness"]


def test_a_judge_over_http_gives_verdicts_with_reasons_and_is_asked_once() -> None:
    verdicts, cache = Verdicts(), judging.Memory()
    with FakeLLM(verdicts) as server:

        async def measure() -> list[Any]:
            judge = open_judge(server, cache)
            try:
                return await suite.measure_all([WRONG], _JUDGED, judge)
            finally:
                await judge.model.close()

        result = run_anywhere(measure)[0]
        found = {one.metric: one for one in result.values}
        assert [found[name].value for name in _JUDGED] == [0.0, 1.0, 0.0, 0.0]
        assert "two years" in found["faithfulness"].reason
        assert all(one.judged for one in result.values)
        calls = verdicts.calls
        assert run_anywhere(measure)[0] == result
        assert verdicts.calls == calls  # every verdict came from the cache


def test_a_judge_that_answers_garbage_gives_errors_not_numbers() -> None:
    with FakeLLM(lambda body: "as an AI I would rather not") as server:

        async def measure() -> list[Any]:
            judge = open_judge(server)
            try:
                return await suite.measure_all([WRONG], _JUDGED, judge)
            finally:
                await judge.model.close()

        result = run_anywhere(measure)[0]
    assert [one.value for one in result.values] == [None] * 4
    assert all("not the JSON asked for" in one.error for one in result.values)
    assert suite.summarise([result], _JUDGED) == ()
