"""Scores of an answer as it is given: the deterministic scorers of the suites, on what was asked, found and answered.

They need no reference answer and no LLM, and cost about a millisecond: word overlap, with its limits. Must not be asked
in the event loop.
"""

from __future__ import annotations

from ondol.evaluation import text_metrics
from ondol.records.chat import Answered
from ondol.records.evaluation import EvalSample

SCORERS = {"faithfulness": text_metrics.faithfulness, "answer_relevancy": text_metrics.answer_relevancy}


def of(question: str, answered: Answered) -> dict[str, float]:
    """Return the scores that apply, each from 0 to 1, by name: signals of the request."""
    sample = EvalSample(
        id="", question=question, answer=answered.text, ground_truth="", contexts=answered.contexts,
        documents=answered.documents,
    )  # fmt: skip
    if answered.found and not answered.contexts:  # nothing was retrieved: there is nothing to be faithful to
        return {"answer_relevancy": float(text_metrics.answer_relevancy(sample).value or 0.0)}
    scored = {name: scorer(sample).value for name, scorer in SCORERS.items()}
    return {name: float(value) for name, value in scored.items() if value is not None}
