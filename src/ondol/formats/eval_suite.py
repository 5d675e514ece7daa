"""An evaluation suite (YAML) and its questions (JSONL, or inline) to `SuiteSpec`. Strict, with file and line.

    name: qa
    application: assistant            # left out: the samples carry their answers
    dataset: questions.jsonl          # or `samples:` inline
    metrics: [faithfulness, answer_relevancy, context_precision, context_recall, answer_correctness, recall@5]
    judge: openai/gpt-4o-mini         # left out: deterministic scorers
    thresholds: {answer_correctness: 0.5}

A sample has `question` and any of `id, answer, contexts, ground_truth, documents, gold, answerable, language`.
`answers` is a list of references of which any is right. `gold` names the passages that are needed: `a.md`, `a.md#text`,
a list of alternatives, or objects `{document, quote}` (alternatives of one passage). The column names
of Ragas' older and newer dictionaries are read too (`user_input`, `response`, `retrieved_contexts`, `reference`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ondol.base import errors, hashing
from ondol.records import codec
from ondol.records.evaluation import EvalSample
from ondol.records.suite import SuiteSpec

_KEYS = {"name", "application", "dataset", "samples", "metrics", "judge", "thresholds"}
_ALIASES = {
    "user_input": "question",
    "response": "answer",
    "retrieved_contexts": "contexts",
    "reference": "ground_truth",
    "ground_truths": "ground_truth",
}
_FIELDS = {
    "id", "question", "answer", "contexts", "ground_truth", "documents", "gold", "answerable", "language", "answers",
}  # fmt: skip


def load(path: Path) -> SuiteSpec:
    """Read a suite file.

    :raises InputError: naming the file, the line or the field that is wrong.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise errors.InputError(f"cannot read {str(path)!r}: {error.strerror}", code="INP-020") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise errors.InputError(f"not YAML: {error}", where=str(path), code="INP-020") from error
    if not isinstance(value, dict):
        raise errors.InputError("a suite is a mapping", where=str(path), code="INP-020")
    if unknown := sorted(set(value) - _KEYS):
        raise errors.UnsupportedError(
            f"unknown key {unknown[0]!r}",
            where=str(path),
            way_out=f"Known: {', '.join(sorted(_KEYS))}.",
            code="UNS-020",
        )
    if "dataset" in value:
        samples = read_jsonl(path.parent / str(value["dataset"]))
    else:
        samples = from_rows(value.get("samples") or [], where=f"{path}: samples")
    if not samples:
        raise errors.InputError("the suite has no samples", where=str(path), code="INP-021")
    rest = {key: value[key] for key in ("name", "application", "metrics", "judge", "thresholds") if key in value}
    return codec.typed({"name": path.stem, **rest, "samples": codec.plain(samples)}, SuiteSpec)


def read_jsonl(path: Path) -> list[EvalSample]:
    """Read samples, one JSON object a line.

    :raises InputError: naming the line that is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InputError(f"cannot read {str(path)!r}: {error}", code="INP-020") from error
    rows: list[Any] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise errors.InputError(f"not JSON: {error}", where=f"{path}:{number}", code="INP-020") from error
    return from_rows(rows, where=str(path))


def columns_to_rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Turn a dictionary of columns (as Ragas takes it) into rows.

    :raises InputError: when the columns have different lengths.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise errors.InputError(f"columns of different lengths: {lengths}", code="INP-022")
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def from_rows(rows: Iterable[Any], where: str) -> list[EvalSample]:
    """Turn plain rows into samples; a row without an id gets the digest of its question and its place.

    :raises InputError: naming the row and the field that is wrong, or a repeated id.
    """
    samples: list[EvalSample] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        place = f"{where}: row {number}"
        if not isinstance(row, Mapping):
            raise errors.InputError("a sample is a mapping", where=place, code="INP-022")
        plain = {_ALIASES.get(str(key), str(key)): value for key, value in row.items() if value is not None}
        if unknown := sorted(set(plain) - _FIELDS):
            raise errors.UnsupportedError(
                f"unknown field {unknown[0]!r}",
                where=place,
                way_out=f"Known: {', '.join(sorted(_FIELDS))}.",
                code="UNS-020",
            )
        if isinstance(truth := plain.get("ground_truth"), list):
            plain["ground_truth"] = "\n".join(str(one) for one in truth)
        _references(plain)
        question = str(plain.get("question", "")).strip()
        if not question:
            raise errors.InputError("a sample without a question", where=place, code="INP-022")
        plain.setdefault("id", f"{number}-{hashing.short(hashing.of_bytes(question.encode()), 8)}")
        try:
            sample = codec.typed({**plain, "id": str(plain["id"])}, EvalSample)
        except errors.InputError as error:
            raise errors.InputError(error.message, where=place, code="INP-022") from error
        if sample.id in seen:
            raise errors.InputError(f"the id {sample.id!r} stands twice", where=place, code="INP-022")
        seen.add(sample.id)
        samples.append(sample)
    return samples


def _references(plain: dict[str, Any]) -> None:
    """Bring the several ways of writing references and gold passages into one."""
    if isinstance(answers := plain.pop("answers", None), list):
        plain.setdefault("answerable", bool(answers))
        plain.setdefault("ground_truth", answers[0] if answers else "")
        plain["alternatives"] = answers[1:]
    gold = plain.get("gold")
    if isinstance(gold, list) and gold and all(isinstance(one, Mapping) for one in gold):
        plain["gold"] = [[f"{one['document']}#{one['quote']}" if one.get("quote") else one["document"] for one in gold]]
    elif isinstance(gold, list):
        plain["gold"] = [[one] if isinstance(one, str) else one for one in gold]


def dataset_digest(samples: Sequence[EvalSample]) -> str:
    """Return the identity of the questions and references, whatever was answered."""
    return hashing.of_json(
        [[one.id, one.question, one.ground_truth, [list(each) for each in one.gold], one.answerable] for one in samples]
    )
