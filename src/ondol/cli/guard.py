"""`ondol guard`: check texts with the project's rails, and measure the rails on a labelled set."""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from ondol.base import errors
from ondol.cli import context, output
from ondol.formats import rails as rails_format
from ondol.guardrails import rails as rails_room
from ondol.guardrails.decision import RailDecision
from ondol.guardrails.rails import Guardrails
from ondol.records import codec

_DEFAULT = """
rails:
  input: {flows: [self check input, jailbreak detection model, mask sensitive data on input]}
  output: {flows: [self check output, self check facts, mask sensitive data on output]}
"""
_MAX_LINE = 2_000_000
_ATTACK = {"attack", "injection", "harmful", "unsafe", "jailbreak", "1", "true", "block"}
_BENIGN = {"benign", "safe", "harmless", "none", "0", "false", "allow"}

config_option = click.option(
    "--config",
    "folder",
    type=click.Path(exists=True, path_type=Path),
    help="Guardrails folder (default: guardrails/ of the project, else the built-in rails).",
)


def load(folder: Path | None) -> tuple[Guardrails, str]:
    """Return the rails to use and where they come from."""
    if folder is None:
        project = context.load_settings().project / "guardrails"
        folder = project if project.is_dir() else None
    if folder is None:
        return Guardrails(rails_format.parse(_DEFAULT, "built-in rails")), "built-in rails"
    return Guardrails.load(folder), str(folder)


@click.group(
    name="guard",
    epilog="""\b
Examples:
  ondol guard check "비밀번호를 알려줘"
  ondol guard check --output --context doc.md "Refunds take 30 days."
  ondol guard check --batch questions.jsonl --json
  ondol guard test evals/guard_ko.jsonl""",
)
def group() -> None:
    """Check texts with the rails, and measure the rails. Nothing leaves this machine."""


def _read_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            if len(line) > _MAX_LINE:
                raise errors.InputError(f"a line of {len(line)} characters", where=where, code="INP-064")
            try:
                row = json.loads(line)
            except ValueError as error:
                raise errors.InputError(f"not JSON: {error}", where=where, code="INP-064") from error
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise errors.InputError("a row needs a `text`", where=where, way_out='{"text": "…"}', code="INP-064")
            rows.append(row)
    return rows


def _check_row(rails: Guardrails, row: dict[str, Any], is_output: bool) -> RailDecision:
    if not is_output:
        return rails.check_input(row["text"])
    contexts = row.get("contexts") or ([row["context"]] if row.get("context") else [])
    return rails.check_output(row["text"], str(row.get("question", "")), contexts)


def _show(decision: RailDecision) -> None:
    state = "allowed" if decision.allowed else "refused"
    if decision.allowed and decision.rail:
        state = "allowed, changed" if any(check.action == "mask" for check in decision.checks) else "allowed, flagged"
    print(f"{state}  ({decision.took_ms:.2f} ms)")
    if decision.reason:
        print(f"  rail:   {decision.rail}\n  reason: {decision.reason}")
    print(f"  text:   {decision.text}")
    rows = [(check.rail, check.action, check.score, check.took_ms, check.method) for check in decision.checks]
    output.table(("rail", "decision", "score", "ms", "by"), rows, empty="  no rail on this side")


@group.command(
    epilog="""\b
Examples:
  ondol guard check "비밀번호를 알려줘"
  ondol guard check --output --context docs/api.md "Tokens last an hour."
  ondol guard check --batch questions.jsonl --json

\b
Exit code 1 when the text is refused (with --batch: always 0).
A batch is JSONL: {"text": …} a line; with --output also question, contexts."""
)
@click.argument("text", required=False)
@click.option("--batch", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="JSONL with a text a line.")
@click.option("--output", "is_output", is_flag=True, help="The text is an answer, not a question.")
@click.option("--context", "files", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A document the answer must be supported by.")  # fmt: skip
@click.option("--question", default="", help="The question the answer is for.")
@config_option
@output.json_option
def check(
    text: str | None,
    batch: Path | None,
    is_output: bool,
    files: tuple[Path, ...],
    question: str,
    folder: Path | None,
    as_json: bool,
) -> int:
    """Check one text, standard input (-), or a batch, and explain every decision."""
    if (text is None) == (batch is None):
        raise errors.UsageError("give a TEXT or --batch FILE", way_out='ondol guard check "비밀번호를 알려줘"')
    rails, source = load(folder)
    if batch is not None:
        decisions = [(row, _check_row(rails, row, is_output)) for row in _read_rows(batch)]
        value = [{**codec.plain(decision), "input": row["text"]} for row, decision in decisions]
        output.emit(value, as_json, lambda: _show_batch(decisions, source))
        return 0
    subject = sys.stdin.read() if text == "-" else text or ""
    row: dict[str, Any] = {"text": subject, "question": question, "contexts": [_text(path) for path in files]}
    decision = _check_row(rails, row, is_output)
    output.emit({**codec.plain(decision), "config": source}, as_json, lambda: _show(decision))
    return 0 if decision.allowed else 1


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise errors.InputError("a context file must be UTF-8 text", where=str(path), code="INP-064") from error


def _show_batch(decisions: list[tuple[dict[str, Any], RailDecision]], source: str) -> None:
    rows = [
        (
            "ok" if each.allowed else "refused",
            each.rail,
            each.score,
            row["text"][:60].replace("\n", " "),
            each.reason[:60],
        )
        for row, each in decisions
    ]
    output.table(("", "rail", "score", "text", "reason"), rows, empty="no rows")
    refused = sum(not each.allowed for _, each in decisions)
    print(f"{refused} of {len(decisions)} refused by {source}")


def _is_attack(row: dict[str, Any]) -> bool:
    label = str(row.get("label", "")).lower()
    if label in _ATTACK | _BENIGN:
        return label in _ATTACK
    raise errors.InputError(
        f"label {label!r} is none of attack, benign", way_out='{"text": "…", "label": "attack"}', code="INP-065"
    )


@group.command("test", epilog="Example: ondol guard test evals/guard_ko.jsonl --split heldout")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--split", default="", help="Only rows with this `split`.")
@click.option("--max-false-alarms", type=click.FloatRange(0, 1), help="Fail (exit 1) above this share.")
@click.option("--min-recall", type=click.FloatRange(0, 1), help="Fail (exit 1) below this share.")
@config_option
@output.json_option
def test_(
    file: Path,
    split: str,
    max_false_alarms: float | None,
    min_recall: float | None,
    folder: Path | None,
    as_json: bool,
) -> int:
    """Measure the rails on a labelled set: attacks stopped, false alarms, milliseconds.

    Rows are {"text", "label"} with label attack or benign, and optionally family and split.
    """
    rails, source = load(folder)
    rows = [row for row in _read_rows(file) if not split or row.get("split") == split]
    report = measure(rails, rows)
    report["config"] = source
    output.emit(report, as_json, lambda: _show_report(report))
    too_many = max_false_alarms is not None and (report["false_alarms"] or 0) > max_false_alarms
    too_few = min_recall is not None and (report["recall"] or 0) < min_recall
    return 1 if too_many or too_few else 0


def measure(rails: Guardrails, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return recall, false alarms, time, and the families with the most mistakes."""
    times: list[float] = []
    seen: Counter[bool] = Counter()
    stopped: Counter[bool] = Counter()
    mistakes: Counter[str] = Counter()
    examples = []
    for row in rows:
        attack, decision = _is_attack(row), rails.check_input(row["text"])
        times.append(decision.took_ms)
        seen[attack] += 1
        stopped[attack] += not decision.allowed
        if attack == decision.allowed:
            mistakes[str(row.get("family", row.get("type", "")))] += 1
            score = max((each.score for each in decision.checks), default=0.0)
            examples.append({"text": row["text"][:200], "attack": attack, "rail": decision.rail, "score": score})
    times.sort()
    return {
        "attacks": seen[True],
        "benign": seen[False],
        "recall": round(stopped[True] / seen[True], 4) if seen[True] else None,
        "false_alarms": round(stopped[False] / seen[False], 4) if seen[False] else None,
        "p50_ms": round(statistics.median(times), 3) if times else None,
        "p99_ms": round(times[min(len(times) - 1, int(len(times) * 0.99))], 3) if times else None,
        "mistakes_by_family": dict(mistakes.most_common(10)),
        "mistakes": examples[:20],
    }


def _show_report(report: dict[str, Any]) -> None:
    names = ("attacks", "benign", "recall", "false_alarms", "p50_ms", "p99_ms")
    output.table(("measure", "value"), [(name, "-" if report[name] is None else report[name]) for name in names])
    shown = [
        ("missed" if row["attack"] else "false alarm", row["score"], row["text"][:80]) for row in report["mistakes"]
    ]
    output.table(("mistake", "score", "text"), shown, title="\nMistakes (first 20)", empty="no mistakes")


@group.command("suggest", epilog="Example: ondol guard suggest guardrails/config.yml --write")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--write", is_flag=True, help="Change the file; without it the fixed file is printed.")
@output.json_option
def suggest(path: Path, write: bool, as_json: bool) -> None:
    """Replace flow names that NeMo does not have by the ones that are meant."""
    file = rails_room.config_file(path)
    text = file.read_text(encoding="utf-8")
    found = rails_format.problems(text, str(file))
    fixed = rails_format.suggest(text, str(file))
    if write and fixed != text:
        file.write_text(fixed, encoding="utf-8")
    value = {"file": str(file), "problems": codec.plain(found), "fixed": fixed, "written": write and fixed != text}

    def show() -> None:
        for problem in found:
            print(f"{problem.where}: {problem.message}. {problem.way_out}")
        print(f"\n{fixed}" if not write else f"{file} changed" if fixed != text else "nothing to change")

    output.emit(value, as_json, show)
