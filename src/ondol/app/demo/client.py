"""An ordinary client of the chat endpoint: a question in, an answer with its ids out, feedback afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from ondol.base import errors
from ondol.base.settings import Address


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    text: str
    request: str
    """Request id: what feedback is joined on."""

    arm: str
    trace: str


class Chat:
    """One application behind the OpenAI-compatible endpoint."""

    def __init__(self, data: Address, application: str) -> None:
        self._application = application
        self._http = httpx.Client(base_url=data.url, timeout=120, trust_env=False)

    def ask(self, question: str, unit: str = "") -> Reply:
        """Ask.

        :raises UpstreamError: when the endpoint refuses, or does not answer.
        """
        asked = {"model": self._application, "messages": [{"role": "user", "content": question}]}
        named = {"x-ondol-unit": unit} if unit else {}
        try:
            answer = self._http.post("/openai/v1/chat/completions", json=asked, headers=named)
        except httpx.TransportError as error:
            raise errors.UpstreamError(f"the data plane did not answer: {error}", code="UPS-031") from error
        if answer.is_error:
            raise errors.UpstreamError(
                f"the data plane answered {answer.status_code}: {answer.text[:200]}", code="UPS-030"
            )
        body = answer.json()
        text = str(body["choices"][0]["message"]["content"])
        headers = answer.headers
        return Reply(text, headers.get("x-request-id", ""), headers.get("x-ondol-arm", ""), body["ondol"]["trace"])

    def feedback(self, request: str, score: float) -> None:
        """Say how good an answer was, from 0 (wrong) to 1 (right)."""
        self._http.post("/ondol/v1/labels", json={"labels": {request: {"score": score}}}).raise_for_status()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()
