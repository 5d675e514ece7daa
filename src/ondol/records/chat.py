"""A chat with a language model: what is asked, what is answered, how many tokens it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: str
    """`system`, `user` or `assistant`."""

    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked of a model. None: the provider's own default."""

    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    output_schema: Json | None = None
    """JSON schema the answer must follow; only given to models that can constrain their decoding."""

    schema_name: str = "answer"


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one call. Cached tokens are part of `input`, reasoning tokens are part of `output`."""

    input: int = 0
    output: int = 0
    cached: int = 0
    estimated: bool = False
    """True when the provider did not say and we counted characters."""


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What a model answered."""

    text: str
    finish: str
    """`stop`, `length`, `content_filter`, `tool_calls`."""

    usage: TokenUsage
    model: str = ""
    """The model that answered, as the provider calls it."""


@dataclass(frozen=True, slots=True)
class ChatDelta:
    """A piece of a streamed answer; the last one carries `finish` and `usage`."""

    text: str = ""
    finish: str = ""
    usage: TokenUsage | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a piece of an answer comes from."""

    number: int
    """As in the text: `[1]`."""

    document: str
    title: str
    chunk: str
    quote: str
    """The passage, shortened for people."""

    start: int = 0
    end: int = 0
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What an application answered to one question, with everything a caller may want to know about it."""

    text: str
    value: Any = None
    """The validated object when the application has an output schema."""

    citations: tuple[Citation, ...] = ()
    contexts: tuple[str, ...] = ()
    """The texts that were retrieved, best first."""

    documents: tuple[str, ...] = ()
    """The documents they come from, in the same order."""

    found: bool = True
    """False when the documents do not say."""

    blocked_by: str = ""
    """The rail that refused; empty when none did."""

    answerer: str = ""
    """`extractive`, or the model's name."""

    degraded: str = ""
    """One sentence when something was missing or failed and the answer is less than it should be."""

    finish: str = "stop"
    usage: TokenUsage = field(default_factory=TokenUsage)
    cost: float | None = 0.0
    """US dollars; None when the model has no known price."""

    cost_status: str = "free"
    trace: str = ""
    release: str = ""
    quality: float | None = None
    """A score in [0, 1] when something judged the answer (extractive score, groundedness)."""
