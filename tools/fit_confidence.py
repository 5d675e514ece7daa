"""Fit the confidence of `ondol.llm.extractive` on `tools/calibration.tsv` and print the constants to put there.

The table has, per passage: language, subject, passage, two paraphrased and one close question with their answers, and
one question on the subject that no passage answers. Row i and row i + half are translations of each other. Questions
count as unanswerable too once their passage and its translation are taken away; the rest of the subject stays.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ondol.llm import extractive
from ondol.retrieval import index
from ondol.store.connection import Store

TABLE = Path(__file__).resolve().parent / "calibration.tsv"


def main() -> None:
    rows = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        home, documents = Path(folder) / "home", Path(folder) / "documents"
        documents.mkdir()
        for number, row in enumerate(rows):
            (documents / f"{number}.txt").write_text(row[2], encoding="utf-8")
        with Store(home / "ondol.db") as store:
            index.build("calibration", documents, home=home, store=store)
            opened = index.open_index("calibration", home=home, store=store)
            report("with vectors", *examples(opened, rows, True))
            report("words only", *examples(opened, rows, False))


def examples(opened: index.Index, rows: list[list[str]], vectors: bool) -> tuple[Any, Any, list[str]]:
    values: list[tuple[float, ...]] = []
    answered: list[int] = []
    languages: list[str] = []

    def add(row: list[str], question: str, where: dict[str, Any] | None, answerable: bool) -> None:
        hits = opened.search(question, 5, where=where)
        ranked = extractive.rank(question, hits, opened.similarities if vectors else None)
        found = extractive.features(hits, ranked)
        values.append(found if vectors else (found[0], max(item.overlap for _, item in ranked)))
        answered.append(int(answerable))
        languages.append(row[0])

    half = len(rows) // 2
    for number, row in enumerate(rows):
        away = {"not": {"path": {"in": [f"{number}.txt", f"{(number + half) % len(rows)}.txt"]}}}
        for question in (row[3], row[5], row[7]):
            add(row, question, None, True)
            add(row, question, away, False)
        add(row, row[9], None, False)
    return np.array(values), np.array(answered), languages


def report(name: str, values: Any, answered: Any, languages: list[str]) -> None:
    model = LogisticRegression(C=10, class_weight="balanced").fit(values, answered)
    print(f"{name}: bias {model.intercept_[0]:.2f}, weights {[round(float(weight), 2) for weight in model.coef_[0]]}")
    probability = model.predict_proba(values)[:, 1]
    for language in ("en", "ko"):
        chosen = np.array([item == language for item in languages])
        p, y = probability[chosen], answered[chosen]
        said = f"answered {(p[y == 1] > 0.5).mean():.2f}, refused {(p[y == 0] <= 0.5).mean():.2f}"
        print(f"  {language}: auc {roc_auc_score(y, p):.3f}, {said}, n {len(y)}")


if __name__ == "__main__":
    main()
