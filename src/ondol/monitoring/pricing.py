"""What models cost. A small table with the day it was read; the project's own prices come first.

US dollars per million tokens: input, output, input read from the provider's cache. Models whose price depends on
the length of a request are left out: a wrong price is worse than none, and `prices:` in ondol.yaml adds any.
An unknown model has no price; it is never booked as free.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ondol.base import errors
from ondol.records.usage import FREE, Price

READ_ON = "2026-11-20"

_TABLE: dict[str, tuple[float, float, float]] = {
    "openai/gpt-3.5-turbo": (0.5, 1.5, 0.5),
    "openai/gpt-4": (30.0, 60.0, 30.0),
    "openai/gpt-4-turbo": (10.0, 30.0, 10.0),
    "openai/gpt-4o": (2.5, 10.0, 1.25),
    "openai/gpt-4o-mini": (0.15, 0.6, 0.075),
    "openai/gpt-4.1": (2.0, 8.0, 0.5),
    "openai/gpt-4.1-mini": (0.4, 1.6, 0.1),
    "openai/gpt-4.1-nano": (0.1, 0.4, 0.025),
    "openai/gpt-5": (1.25, 10.0, 0.125),
    "openai/gpt-5-mini": (0.25, 2.0, 0.025),
    "openai/gpt-5-nano": (0.05, 0.4, 0.005),
    "openai/gpt-5.1": (1.25, 10.0, 0.125),
    "openai/gpt-5.2": (1.75, 14.0, 0.175),
    "openai/o3": (2.0, 8.0, 0.5),
    "openai/o3-mini": (1.1, 4.4, 0.55),
    "openai/o4-mini": (1.1, 4.4, 0.275),
    "openai/text-embedding-3-small": (0.02, 0.0, 0.02),
    "openai/text-embedding-3-large": (0.13, 0.0, 0.13),
    "anthropic/claude-haiku-4-5": (1.0, 5.0, 0.1),
    "anthropic/claude-opus-4-1": (15.0, 75.0, 1.5),
    "anthropic/claude-opus-4-5": (5.0, 25.0, 0.5),
    "gemini/gemini-2.0-flash": (0.1, 0.4, 0.025),
    "gemini/gemini-2.5-flash": (0.3, 2.5, 0.03),
    "gemini/gemini-2.5-flash-lite": (0.1, 0.4, 0.01),
    "deepseek/deepseek-chat": (0.28, 0.42, 0.028),
    "deepseek/deepseek-reasoner": (0.28, 0.42, 0.028),
    "groq/llama-3.3-70b-versatile": (0.59, 0.79, 0.59),
    "groq/llama-3.1-8b-instant": (0.05, 0.08, 0.05),
    "groq/openai/gpt-oss-120b": (0.15, 0.6, 0.075),
    "groq/openai/gpt-oss-20b": (0.075, 0.3, 0.0375),
    "xai/grok-3-mini": (0.3, 0.5, 0.075),
}
_DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$")  # gpt-4o-mini-2024-07-18


def table() -> dict[str, Price]:
    """Return the built-in prices by `provider/model`."""
    return {name: Price(*numbers, since=READ_ON, source="table") for name, numbers in _TABLE.items()}


def read_price(value: Any, name: str) -> Price:
    """Read `{input: 0.15, output: 0.6, cached: 0.075}` or `free`.

    :raises InputError: naming the model when it is no such thing.
    """
    if value == "free":
        return FREE
    names = set(value) if isinstance(value, Mapping) else set()
    if not {"input", "output"} <= names <= {"input", "output", "cached", "since"}:
        raise errors.InputError(
            f"the price of {name!r} is {value!r}",
            where=f"ondol.yaml: prices.{name}",
            way_out="Write {input: 0.15, output: 0.6} in US dollars per million tokens, or free.",
            code="INP-170",
        )
    numbers = [value.get(key) for key in ("input", "output", "cached")]
    if any(
        one is not None and (isinstance(one, bool) or not isinstance(one, int | float) or not 0 <= one < 1e6)
        for one in numbers
    ):
        raise errors.InputError(
            f"the price of {name!r} has a value that is no price", where=f"ondol.yaml: prices.{name}", code="INP-170"
        )
    cached = None if numbers[2] is None else float(numbers[2])
    return Price(float(numbers[0]), float(numbers[1]), cached, str(value.get("since", "")), "ondol.yaml")


class Prices:
    """The project's prices over the built-in ones.

    :param own: `prices:` of ondol.yaml: `provider/model` or `model` to a price.
    """

    def __init__(self, own: Mapping[str, Any] | None = None) -> None:
        self._own = {name: read_price(value, name) for name, value in (own or {}).items()}
        self._table = table()

    def of(self, provider: str, model: str, declared: Any = None, local: bool = False) -> Price | None:
        """Return the price of a model; None when nobody knows it.

        :param declared: the `price` written beside the model in ondol.yaml; comes first.
        :param local: the model runs on a machine of one's own, and costs nothing unless a price is declared.
        """
        if declared:
            return read_price(declared, f"{provider}/{model}")
        names = [f"{provider}/{model}", model]
        if undated := _DATED.sub("", model):
            names += [f"{provider}/{undated}", undated]
        for name in names:
            if name in self._own:
                return self._own[name]
        if local:
            return FREE
        return next((self._table[name] for name in names if name in self._table), None)
