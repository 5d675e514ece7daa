"""Retrieval and the extractive reader on foreign corpora first, our own documentation second.

Reported per set: recall@1 and @5, MRR, nDCG@5 of vectors only, words only and both with the gate; how often the
reader's answer contains a gold answer (all questions, answered ones) and its best token F1; how often it answers a
question whose gold passages were taken away or that nothing answers (the rest of the collection stays); seconds of the
cold index. Foreign data is read from `$ONDOL_SHARED_DATA` (default: ../shared/data) and left out, visibly, without it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondol.base import text
from ondol.llm import extractive
from ondol.records.retrieval import Hit, SearchOptions
from ondol.retrieval import index
from ondol.store.connection import Store

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("ONDOL_SHARED_DATA", HERE.parent.parent / "shared" / "data")) / "qa"
DOCS, QUESTIONS = HERE.parent / "docs", HERE.parent / "evals" / "docs_questions.jsonl"
K = 5


@dataclass(frozen=True, slots=True)
class Question:
    """A question with the passages that answer it: documents, and in them a quote when the document is long."""

    text: str
    gold: tuple[tuple[str, str], ...]
    """(document, quote) alternatives; () when nothing answers."""

    answers: tuple[str, ...]
    language: str

    def is_gold(self, hit: Hit) -> bool:
        squeezed = " ".join(hit.text.split())
        return any(hit.document == document and quote in squeezed for document, quote in self.gold)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def xquad(folder: Path) -> list[Question]:
    """English encyclopedia passages and questions whose answer is a span of one."""
    for row in lines(DATA / "xquad_en_corpus.jsonl"):
        (folder / f"{row['id']}.txt").write_text(row["text"], encoding="utf-8")
    return [
        Question(row["question"], ((f"{row['gold_doc_id']}.txt", ""),), tuple(row["answers"]), "en")
        for row in lines(DATA / "xquad_en_qa.jsonl")
    ]


def klue_sts(folder: Path) -> list[Question]:
    """Korean sentences: find the paraphrase among all second sentences; a pair that is none is unanswerable."""
    questions = []
    for number, row in enumerate(lines(DATA / "klue_sts_dev.jsonl")):
        (folder / f"{number}.txt").write_text(row["s2"], encoding="utf-8")
        if row["label"]:
            questions.append(Question(row["s1"], ((f"{number}.txt", ""),), (row["s2"],), "ko"))
    return questions


def own_docs(_: Path) -> list[Question]:
    return [
        Question(
            row["question"],
            tuple((item["document"], " ".join(item["quote"].split())) for item in row["gold"]),
            tuple(row["answers"]),
            row["language"],
        )
        for row in lines(QUESTIONS)
    ]


def ranks(opened: index.Index, questions: Iterable[Question], options: SearchOptions) -> list[int]:
    """Return per question the rank of the first gold hit, from 1; 0 when it is not among the first K."""
    return [
        next((at for at, hit in enumerate(opened.search(one.text, K, options=options), 1) if one.is_gold(hit)), 0)
        for one in questions
    ]


def retrieval(found: list[int]) -> dict[str, float]:
    count = max(1, len(found))
    return {
        "recall@1": round(sum(rank == 1 for rank in found) / count, 3),
        f"recall@{K}": round(sum(rank > 0 for rank in found) / count, 3),
        "mrr": round(sum(1 / rank for rank in found if rank) / count, 3),
        f"ndcg@{K}": round(sum(1 / math.log2(rank + 1) for rank in found if rank) / count, 3),
    }


def token_f1(answer: str, gold: str) -> float:
    """Token F1 over searchable words (pairs of characters for Hangul)."""
    left, right = Counter(text.words(answer)), Counter(text.words(gold))
    shared = sum((left & right).values())
    return 2 * shared / (sum(left.values()) + sum(right.values())) if shared else 0.0


def reading(opened: index.Index, questions: list[Question], threshold: float) -> dict[str, float]:
    """Return the reader's figures; every question is asked again with its gold documents away."""
    answered, right, overlaps, wrongly, empty = 0, 0, 0.0, 0, 0
    answerable = [one for one in questions if one.gold]
    for one in answerable:
        said = extractive.answer(one.text, opened.search(one.text, K), threshold, similarity=opened.similarities)
        answered += said.found
        if said.found:
            squeezed = " ".join(said.text.split()).casefold()
            right += any(" ".join(item.split()).casefold() in squeezed for item in one.answers)
            overlaps += max(token_f1(said.text, item) for item in one.answers)
    for one in questions:
        away = {"not": {"path": {"in": [document for document, _ in one.gold]}}} if one.gold else None
        hits = opened.search(one.text, K, where=away)
        said = extractive.answer(one.text, hits, threshold, similarity=opened.similarities)
        empty += 1
        wrongly += said.found
    return {
        "answered": round(answered / max(1, len(answerable)), 3),
        "contains_gold": round(right / max(1, len(answerable)), 3),
        "contains_gold_of_answered": round(right / max(1, answered), 3),
        "token_f1_of_answered": round(overlaps / max(1, answered), 3),
        "refused_unanswerable": round(1 - wrongly / max(1, empty), 3),
        "unanswerable": empty,
    }


def measure(
    name: str, load: Callable[[Path], list[Question]], home: Path, source: Path | None, limit: int, threshold: float
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as made, Store(home / "ondol.db") as store:
        folder = source or Path(made)
        questions = load(folder)
        questions = questions[:: max(1, len(questions) // limit)][:limit] if limit else questions
        began = time.perf_counter()
        built = index.build(name, folder, home=home, store=store)
        seconds = time.perf_counter() - began
        opened = index.open_index(name, home=home, store=store)
        figures: dict[str, Any] = {
            "documents": len(built.documents),
            "chunks": built.chunks,
            "embedded": built.report.embedded,
            "index_seconds": round(seconds, 1),
            "questions": len(questions),
        }
        for language in sorted({one.language for one in questions}):
            asked = [one for one in questions if one.language == language]
            for way, options in (("vectors", SearchOptions(gate=2)), ("hybrid", SearchOptions())):
                figures[f"{language} {way}"] = retrieval(ranks(opened, [one for one in asked if one.gold], options))
            figures[f"{language} reader"] = reading(opened, asked, threshold)
    print(name)
    for key, value in figures.items():
        print(f"  {key:12} {value}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--home", type=Path, help="keep the vector cache here between runs; default: cold, in a new one"
    )
    parser.add_argument("--limit", type=int, default=0, help="questions per set; 0: all")
    parser.add_argument("--threshold", type=float, default=extractive.DEFAULT_THRESHOLD)
    chosen = parser.parse_args()
    sets: list[tuple[str, Callable[[Path], list[Question]], Path, Path | None]] = [
        ("xquad_en", xquad, DATA / "xquad_en_qa.jsonl", None),
        ("klue_sts", klue_sts, DATA / "klue_sts_dev.jsonl", None),
        ("own_docs", own_docs, QUESTIONS, DOCS),
    ]
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as made:
        home = chosen.home or Path(made)
        for name, load, needed, source in sets:
            if needed.exists():
                results[name] = measure(name, load, home, source, chosen.limit, chosen.threshold)
            else:
                print(f"{name}: skipped, no {needed.name} here")
    print(json.dumps(results, ensure_ascii=False))


if __name__ == "__main__":
    main()
