"""Writes an LLM application into the demo's `ondol.yaml`, as its user would: what the demo tries stays for them to use.

What it writes stands between two marks and is replaced when another LLM is named; the rest of the file is not touched.
Must not call the LLM.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import yaml

from ondol.base import errors
from ondol.base.settings import PROJECT_FILE
from ondol.formats import project as projects
from ondol.llm import gguf, registry
from ondol.monitoring import pricing

NAME = "assistant-llm"
PROMPT = "qa_prompt@1.0.0"
INDEX = "docs"
SMALL_INDEX = "docs-small"
SUITE = "assistant/evals/qa_llm.yaml"
PRICE = {"input": 0.10, "output": 0.40}
"""Declared where nobody knows a price, US dollars per million tokens: with a price of nothing no budget ends."""

_FEW, _MORE = 6, 30  # labelled questions, for a model on this machine and for others
CHUNK_TOKENS = 90
"""A tiny model gets short passages."""

_ANSWER_TOKENS = 48  # of a small local model: on two processors a longer answer takes too long
_BEGIN, _END = "# >>> written by `ondol demo --llm`", "# <<< ondol demo --llm"
_MARKED = re.compile(rf"^[ ]*{re.escape(_BEGIN)}\n.*?^[ ]*{re.escape(_END)}\n", re.M | re.S)


def prepare(folder: Path, llm: str, questions: int | None) -> None:
    """Make the demo's project ask an LLM: an application with a price, and a suite of some labelled questions.

    :param questions: how many; None: a handful for a model on this machine, thirty for others.
    :raises InputError, DependencyError: when there is no such LLM, before anything is written.
    :raises ConflictError: when there is no place for it in `ondol.yaml`.
    """
    path = folder / PROJECT_FILE
    before = path.read_text(encoding="utf-8")
    chosen = registry.parse(llm, projects.parse(before, str(path)).llms)
    if chosen.provider == registry.EXTRACTIVE:
        raise errors.UsageError(
            f"--llm {llm!r} is no LLM", way_out="Write gguf:PATH, openai/gpt-4o-mini, ollama/NAME …", code="USE-060"
        )
    if chosen.provider == "gguf":
        gguf.find(chosen.name, folder)
        if importlib.util.find_spec("xllamacpp") is None:
            raise errors.DependencyError(
                "a gguf: model needs xllamacpp", way_out="pip install 'ondol[local-llm]'", code="DEP-160"
            )
    count = questions or (_FEW if chosen.is_local else _MORE)
    text = with_application(before, chosen, count)
    _write_suite(folder, count)
    path.write_text(text, encoding="utf-8")


def with_application(text: str, chosen: registry.LLMSpec, questions: int) -> str:
    """Return an `ondol.yaml` with the LLM application in it, instead of the one that an earlier run wrote."""
    text = _MARKED.sub("", text)
    if not text.endswith("\n"):
        text += "\n"
    text = _insert(text, "applications", {NAME: _application(chosen, questions)})
    if options := _options(chosen):
        text = _insert(text, "llms", {chosen.text: options})
    return text


def _application(chosen: registry.LLMSpec, questions: int) -> dict[str, Any]:
    """A tiny model gets short contexts: it reads a few dozen tokens a second, and understands no more anyway."""
    small = chosen.provider == "gguf"
    return {
        "llm": chosen.text,
        "prompt": PROMPT,
        "index": SMALL_INDEX if small else INDEX,
        "guardrails": "assistant/guardrails/",
        "retrieval": {"k": 2 if small else 5},
        "evaluation": SUITE,
        "rollout": {
            "steps": [50, 100],
            "judge": {
                "metrics": ["error_rate", "quality"],
                "margin": 0.15,
                "min_requests": questions,
                "max_requests": 3 * questions,
            },
        },
    }


def _options(chosen: registry.LLMSpec) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if chosen.is_local or pricing.Prices().of(chosen.provider, chosen.name) is None:
        options["price"] = PRICE
    if chosen.provider == "gguf":
        options["max_tokens"] = _ANSWER_TOKENS
    return options


def _insert(text: str, key: str, entry: dict[str, Any]) -> str:
    """Put an entry first into a block of the file; without such a block, add one."""
    dumped = yaml.safe_dump(entry, allow_unicode=True, sort_keys=False, default_flow_style=None, width=1000)
    found = re.search(rf"^{key}:[ ]*(#.*)?\n", text, re.M)
    if found is None and re.search(rf"^{key}:", text, re.M):
        raise errors.ConflictError(
            f"ondol.yaml has no place for {next(iter(entry))!r}: `{key}:` stands in one line",
            way_out="Write it as a block, or play in another folder: `ondol demo FOLDER --llm …`.",
            code="CON-060",
        )
    lines = [_BEGIN, *dumped.splitlines(), _END]
    if found is None:
        return text + "\n".join([_BEGIN, f"{key}:", *(f"  {one}" for one in dumped.splitlines()), _END]) + "\n"
    below = re.match(r"(?:[ ]*(?:#.*)?\n)*([ ]+)", text[found.end() :])
    indent = below.group(1) if below else "  "
    return text[: found.end()] + "".join(f"{indent}{one}\n" for one in lines) + text[found.end() :]


def _write_suite(folder: Path, questions: int) -> None:
    """Choose questions evenly from the labelled ones (English, Korean, English …), the unanswerable among them."""
    source = folder / "assistant" / "evals" / "docs_questions.jsonl"
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    step = len(rows) / min(questions, len(rows))
    places = [int((number + 0.5) * step) for number in range(min(questions, len(rows)))]
    chosen = dict.fromkeys(min(place - place % 2 + number % 2, len(rows) - 1) for number, place in enumerate(places))
    suite = {
        "name": "qa_llm",
        "application": NAME,
        "metrics": ["answer_correctness", "refusal", "recall@5", "faithfulness"],
        # A floor under what the index gives; the answers are compared, prompt with prompt.
        "thresholds": {"recall@5": 0.3},
        "samples": [rows[place] for place in chosen],
    }
    head = "# Some of the labelled questions, written by `ondol demo --llm`; `--questions N` chooses how many.\n"
    path = folder / SUITE
    path.write_text(head + yaml.safe_dump(suite, allow_unicode=True, sort_keys=False, width=1000), encoding="utf-8")
