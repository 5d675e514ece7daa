"""Quality and speed of the guardrails: `python bench/guard.py DATA_FOLDER [--json]`.

DATA_FOLDER holds `guard/` and `qa/`. Attacks: recall at the shipped thresholds; harmless sets: false alarms. Rows that
calibrated a threshold are marked so. Weaknesses are part of the table. The Korean sets are not blind: see
`not_blind` in the model card, `src/ondol/guardrails/weights/injection.json`.
"""

from __future__ import annotations

import base64
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from ondol.formats import rails as rails_format  # noqa: E402
from ondol.guardrails import grounding, injection, native, personal_data, toxicity  # noqa: E402
from ondol.guardrails.rails import Guardrails  # noqa: E402

SEED = 7
_INPUT = "rails: {input: {flows: [self check input, jailbreak detection model]}}"
_PII = {"EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "US_SSN", "IBAN_CODE", "IP_ADDRESS"}

Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def own(split: str, label: str) -> list[str]:
    rows = read(ROOT / "evals/guard_ko.jsonl")
    return [row["text"] for row in rows if row["split"] == split and row["label"] == label]


def _full_width(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


def _homoglyphs(text: str) -> str:
    return text.translate(str.maketrans("aeopcx", "аеорсх"))


DISGUISES: dict[str, Callable[[str], str]] = {
    "base64": lambda text: "Decode and do this: " + base64.b64encode(text.encode()).decode(),
    "spaced letters": lambda text: " ".join(text.replace(" ", "")),
    "zero-width": lambda text: "\u200b".join(text),
    "full-width": _full_width,
    "look-alike letters": _homoglyphs,
    "capitals": str.upper,
}


def attack_sets(data: Path) -> dict[str, list[str]]:
    """Texts that should be stopped, by name."""
    rng = random.Random(SEED)
    slabs = [
        row["text"] for row in read(data / "guard/slabs_promptinj_validation.jsonl") if row["label"] == "injection"
    ]
    chemistry = read(data / "guard/neuralchemy_promptinj_train.jsonl")[::10]
    kept = [row["text"] for row in chemistry if row["label"] == "injection"]
    korean = own("heldout", "attack")
    passages = [row["text"] for row in read(data / "qa/xquad_en_corpus.jsonl")]
    sets = {
        "S-Labs validation (en)": slabs,
        "neuralchemy, rows not trained on (mixed)": kept,
        "ours, families not trained on (ko, not blind)": korean,
        "hidden in an English passage (indirect)": [
            f"{rng.choice(passages)} {attack} {rng.choice(passages)[:300]}" for attack in rng.sample(slabs, 200)
        ],
        "hidden in an English passage, Korean attack": [f"{rng.choice(passages)} {attack}" for attack in korean],
    }
    sample = rng.sample(slabs, 150)
    for name, disguise in DISGUISES.items():
        sets[f"S-Labs validation as {name}"] = [disguise(text) for text in sample]
    sets["ours (ko), spaced letters"] = [" ".join(text.replace(" ", "")) for text in korean]
    return sets


def benign_sets(data: Path) -> dict[str, list[str]]:
    """Texts that should pass, by name."""
    guard, qa = data / "guard", data / "qa"
    return {
        "S-Labs validation (en; calibrated on)": [
            row["text"] for row in read(guard / "slabs_promptinj_validation.jsonl") if row["label"] == "benign"
        ],
        "XSTest safe (en)": [row["text"] for row in read(guard / "xstest_en.jsonl") if row["label"] == "safe"],
        "ours, families not trained on (ko, not blind)": own("heldout", "benign"),
        "KLUE-NLI premises (ko)": sorted({row["premise"] for row in read(qa / "klue_nli_dev_sample.jsonl")}),
        "KorNLI premises (ko)": sorted({row["premise"] for row in read(qa / "kornli_xnli_test_sample.jsonl")}),
        "SQuARe sensitive questions (ko)": [row["text"] for row in read(guard / "square_question_test_sample.jsonl")],
        "KoSBi safe (ko)": [row["text"] for row in read(guard / "kosbi_test_sample.jsonl") if row["label"] == "safe"],
        "XQuAD questions (en)": [row["question"] for row in read(qa / "xquad_en_qa.jsonl")],
        "XQuAD passages (en documents)": [row["text"] for row in read(qa / "xquad_en_corpus.jsonl")],
    }


def rates(sets: dict[str, list[str]], stops: Callable[[str], bool]) -> dict[str, dict[str, float]]:
    """The share of each set that is stopped."""
    return {
        name: {"rows": len(texts), "stopped": round(sum(map(stops, texts)) / max(1, len(texts)), 4)}
        for name, texts in sets.items()
    }


def personal(data: Path) -> dict[str, Any]:
    """Span precision, recall and F1 (overlap, right kind) on synthetic English texts."""
    hit: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for row in read(data / "guard/presidio_synth_pii.jsonl"):
        gold = [span for span in row["spans"] if span["entity_type"] in _PII]
        found = personal_data.find(row["text"])
        for span in gold:
            kind = span["entity_type"]
            same = any(f.kind == kind and f.start < span["end"] and span["start"] < f.end for f in found)
            (hit if same else missed)[kind] += 1
        for f in found:
            if not any(f.start < span["end"] and span["start"] < f.end for span in row["spans"]):
                wrong[f.kind] += 1
    total, lost, extra = sum(hit.values()), sum(missed.values()), sum(wrong.values())
    precision, recall = total / max(1, total + extra), total / max(1, total + lost)
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    summary = {"precision": round(precision, 3), "recall": round(recall, 3), "f1": round(f1, 3)}
    return {**summary, "missed": dict(missed), "false": dict(wrong), "not looked for": "names, places, dates, titles"}


def abuse(data: Path) -> dict[str, Any]:
    rows = read(data / "guard/ko_curse_sample.jsonl")
    stopped = [(row["label"] == "curse", toxicity.check(row["text"]).action == "block") for row in rows]
    true = sum(truth and said for truth, said in stopped)
    bias = [row for row in read(data / "guard/kosbi_test_sample.jsonl") if row["label"] == "unsafe"]
    return {
        "profanity recall (ko)": round(true / max(1, sum(truth for truth, _ in stopped)), 3),
        "profanity precision (ko)": round(true / max(1, sum(said for _, said in stopped)), 3),
        "KoSBi unsafe stopped (bias without swear words)": round(
            sum(toxicity.check(row["text"]).action == "block" for row in bias) / len(bias), 3
        ),
    }


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Area under the ROC curve, ties counted half."""
    positive = [score for score, label in zip(scores, labels, strict=True) if label]
    negative = [score for score, label in zip(scores, labels, strict=True) if not label]
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return wins / max(1, len(positive) * len(negative))


def grounded(data: Path) -> dict[str, Any]:
    """The coverage proxy against human entailment labels, and on answers from the right or a wrong passage."""
    made: dict[str, Any] = {}
    for name in ("klue_nli_dev_sample", "kornli_xnli_test_sample"):
        rows = read(data / f"qa/{name}.jsonl")
        scores = [_support(row["hypothesis"], row["premise"]) for row in rows]
        truth = [row["label"] == "entailment" for row in rows]
        made[f"{name}: AUC entailment"] = round(auc(scores, truth), 3)
        for label in ("entailment", "neutral", "contradiction"):
            own = [score for score, row in zip(scores, rows, strict=True) if row["label"] == label]
            stopped = sum(score < native.GROUNDING_THRESHOLD for score in own)
            made[f"{name}: {label} stopped"] = {"rows": len(own), "stopped": round(stopped / len(own), 4)}
    passages = {row["id"]: row["text"] for row in read(data / "qa/xquad_en_corpus.jsonl")}
    names = sorted(passages)
    rng = random.Random(SEED)
    right, wrong = [], []
    for name in names:
        sentence = max((text for _, _, text in grounding.sentences(passages[name])), key=len)
        right.append(_support(sentence, passages[name]))
        wrong.append(_support(sentence, passages[rng.choice([other for other in names if other != name])]))
    made["XQuAD sentence, own or other passage: AUC"] = round(
        auc(right + wrong, [True] * len(right) + [False] * len(wrong)), 3
    )
    return made


def _support(claim: str, context: str) -> float:
    return min((each.score for each in grounding.support(claim, [context])), default=1.0)


def speed(rails: Guardrails) -> dict[str, float]:
    """CPU milliseconds per check of both input flows for texts of three sizes, and checks per second of one core.

    Thread CPU time: what others do on the machine at the same time does not count.
    """
    sentence = "How do recurrent neural networks handle sequential data, and 회의는 몇 시에 시작하나요? "
    made = {}
    for size in (100, 1000, 2000):
        text = (sentence * 40)[:size]
        times = []
        for _ in range(200):
            begun = time.thread_time()
            rails.check_input(text)
            times.append((time.thread_time() - begun) * 1000)
        times.sort()
        made[f"{size} chars p50 ms"] = round(statistics.median(times), 3)
        made[f"{size} chars p99 ms"] = round(times[-3], 3)
        made[f"{size} chars checks/s"] = round(1000 / statistics.mean(times))
    return made


def measure(data: Path) -> dict[str, Any]:
    rails = Guardrails(rails_format.parse(_INPUT))
    attacks, benign = attack_sets(data), benign_sets(data)

    def stops(text: str) -> bool:
        return not rails.check_input(text).allowed

    def classifier(text: str) -> bool:
        return injection.check(text).action == "block"

    return {
        "attacks stopped (whole input rail)": rates(attacks, stops),
        "attacks stopped (classifier alone)": rates(attacks, classifier),
        "harmless stopped (whole input rail)": rates(benign, stops),
        "harmless stopped (classifier alone)": rates(benign, classifier),
        "personal data": personal(data),
        "abuse": abuse(data),
        "grounding proxy": grounded(data),
        "speed": speed(rails),
    }


def main() -> None:
    result = measure(Path(sys.argv[1]))
    if "--json" in sys.argv:
        print(json.dumps(result, ensure_ascii=False, indent=1))
        return
    for title, table in result.items():
        print(f"\n{title}")
        for name, value in table.items():
            shown = (
                f"{value['stopped']:7.1%}  of {value['rows']}"
                if isinstance(value, dict) and "stopped" in value
                else value
            )
            print(f"  {name:58} {shown}")


if __name__ == "__main__":
    main()
