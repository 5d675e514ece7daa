"""The ports of this room: a chat model, an embedder, and the meter every call is booked with.

Must not import a provider, HTTP or a heavy library.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from ondol.records.chat import ChatAnswer, ChatDelta, ChatRequest, TokenUsage
from ondol.records.usage import Reservation, UsageIntent, UsageRow


class ChatModel(Protocol):
    """A language model that can chat.

    Both calls raise `UpstreamError` when the provider is down, too slow, refuses or answers nonsense.
    """

    name: str
    """As the provider calls it: `gpt-4o-mini`."""

    provider: str
    supports_json_schema: bool
    """Whether it can constrain its answer to a JSON schema while it writes."""

    async def complete(self, request: ChatRequest) -> ChatAnswer: ...

    def stream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """Yield pieces of text; the last delta carries `finish` and `usage` (estimated when the provider is silent)."""
        ...

    async def close(self) -> None:
        """Let go of connections and memory."""
        ...


class Embedder(Protocol):
    """Turns texts into vectors, one float32 row per text."""

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]: ...

    def embed_query(self, text: str) -> list[float]: ...


class Meter(Protocol):
    """Books calls. `reserve` is durable before it returns; a reservation that is never settled is settled as
    estimated when its process is gone."""

    async def reserve(self, intent: UsageIntent) -> Reservation:
        """Book a call that is about to be made.

        :raises RefusedError: when a budget does not allow it, or the model has no price and a budget applies.
        """
        ...

    async def settle(self, reservation: Reservation, usage: TokenUsage, outcome: str = "ok") -> UsageRow:
        """Book what the call really took, durably."""
        ...
