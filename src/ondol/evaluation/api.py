"""`ondol.evaluate`: the Ragas-shaped call for scripts and notebooks, on the very scorers that `ondol eval` uses.

    result = ondol.evaluate({"question": […], "answer": […], "contexts": […], "ground_truth": […]})
    result["faithfulness"], result.to_pandas()

Must not need a project or a running Ondol.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ondol.base import errors
from ondol.evaluation import judge as judging
from ondol.evaluation import report as reports
from ondol.evaluation import suite
from ondol.formats import eval_suite
from ondol.llm import registry
from ondol.llm.port import ChatModel
from ondol.records.evaluation import SuiteReport
from ondol.records.retrieval import IndexOptions
from ondol.records.suite import RAG_METRICS
from ondol.retrieval import embedding

T = TypeVar("T")


class Result(Mapping[str, float]):
    """Means by metric; prints like a dictionary; the whole report is in `report`."""

    def __init__(self, report: SuiteReport) -> None:
        self.report = report
        self._means = {score.name: score.value for score in report.scores}

    def __getitem__(self, metric: str) -> float:
        return self._means[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self._means)

    def __len__(self) -> int:
        return len(self._means)

    def __repr__(self) -> str:
        return repr({name: round(value, 4) for name, value in self._means.items()})

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per sample: its fields and its metrics."""
        return [
            {
                "id": result.sample.id,
                "question": result.sample.question,
                "answer": result.sample.answer,
                "ground_truth": result.sample.ground_truth,
                **{value.metric: value.value for value in result.values},
            }
            for result in self.report.results
        ]

    def to_pandas(self) -> Any:
        """Return `rows` as a DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def _repr_html_(self) -> str:
        return reports.to_html(self.report)


def evaluate(
    dataset: Any,
    metrics: Sequence[Any] = RAG_METRICS,
    *,
    llm: Any = None,
    embeddings: Any = None,
    cache: judging.Cache | None = None,
    in_flight: int = 16,
) -> Result:
    """Score answers.

    :param dataset: a dictionary of columns, a `datasets.Dataset`, a DataFrame, or a list of rows, with the column names
        of either generation of Ragas (`question, answer, contexts, ground_truth`, or `user_input, response, …`).
    :param metrics: names, or Ragas' metric objects (their `name` is taken).
    :param llm: what judges: `openai/gpt-4o-mini` and the like, or a `ChatModel`; None: deterministic scorers.
    :param embeddings: an object with `embed_query`; None: the built-in model, if it can be installed here.
    :param in_flight: judge calls under way at once.
    :raises InputError: naming the column or row that is wrong.
    """
    samples = eval_suite.from_rows(_rows(dataset), where="dataset")
    names = [str(getattr(metric, "name", metric)) for metric in metrics]
    names = [{"context_relevancy": "context_precision"}.get(name, name) for name in names]
    suite.check_metrics(names)
    embedder, name = _embedder(embeddings, names)
    report = run_anywhere(lambda: _evaluate(samples, names, llm, embedder, name, cache, in_flight))
    return Result(report)


async def _evaluate(
    samples: Sequence[Any],
    names: Sequence[str],
    llm: Any,
    embedder: judging.Embedder | None,
    embedder_name: str,
    cache: judging.Cache | None,
    in_flight: int,
) -> SuiteReport:
    model: ChatModel | None = registry.open_model(registry.parse(llm)) if isinstance(llm, str | Mapping) else llm
    judge = judging.Judge(model, embedder, cache, in_flight) if model is not None else None
    try:
        return await suite.run("evaluate", samples, names, judge=judge, embedder=embedder, embedder_name=embedder_name)
    finally:
        if model is not None and model is not llm:
            await model.close()


def _rows(dataset: Any) -> list[Any]:
    if hasattr(dataset, "to_dict") and hasattr(dataset, "columns") and not hasattr(dataset, "to_list"):
        return list(dataset.to_dict("records"))  # a DataFrame
    if hasattr(dataset, "to_list"):
        return list(dataset.to_list())  # datasets.Dataset, ragas' EvaluationDataset
    if isinstance(dataset, Mapping):
        return eval_suite.columns_to_rows(dataset)
    if isinstance(dataset, Sequence) and not isinstance(dataset, str):
        return list(dataset)
    raise errors.InputError(
        f"a dataset of type {type(dataset).__name__!r}",
        way_out="Give a dictionary of columns, a list of rows, a DataFrame or a datasets.Dataset.",
        code="INP-024",
    )


def _embedder(given: Any, names: Sequence[str]) -> tuple[judging.Embedder | None, str]:
    if "answer_relevancy" not in names:
        return None, ""
    if given is not None:
        return given, type(given).__name__
    if not embedding.available():
        return None, ""
    own = embedding.make(IndexOptions())
    return own, own.id


def run_anywhere(start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, also from a notebook whose thread has a running loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(start())
    outcome: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(asyncio.run(start()))
        except BaseException as error:  # noqa: BLE001  handed to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=work, name="ondol-evaluate")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
