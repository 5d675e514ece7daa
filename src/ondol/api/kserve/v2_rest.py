"""V2 over HTTP: bodies of JSON, or of JSON followed by raw tensors (`Inference-Header-Content-Length`).

Must not decide what a request means: that is `v2`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ondol.api.kserve import answers, v2
from ondol.api.kserve.answers import Headers, Reply
from ondol.api.kserve.call import Call, Read
from ondol.serving import inputs, payloads_raw, payloads_v2
from ondol.serving.models import Model, Serving

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode
LENGTH = b"inference-header-content-length"
_BINARY: tuple[bytes, bytes] = (b"content-type", b"application/octet-stream")


def read(call: Call) -> Read:
    """Return what a request asks for, and who writes and sends its answer.

    :raises InputError: naming the field or header that is wrong.
    """
    request = _request(call)
    writer = Writer(call.serving, request, call.reply)
    return request, writer.write, writer.reply if any(one.binary for one in request.outputs) else call.reply


def _request(call: Call) -> v2.Request:
    serving, body = call.serving, call.body
    declared = call.headers.get(LENGTH)
    if declared is None:
        answers.check_body(call.headers, body)
        rows, request = payloads_v2.read(body, serving.stable.spec)
        return v2.read(rows, request, serving)
    if not declared.isdigit() or int(declared) > len(body):
        raise inputs.wrong(
            f"{declared.decode('latin-1')!r} is not the length of the JSON in a body of {len(body)} bytes",
            "Inference-Header-Content-Length",
            "INP-372",
        )
    binary_rows, binary = payloads_v2.read_binary(body, int(declared), serving.stable.spec)
    call.body = body[: int(declared)]  # what follows was read; the rest is JSON
    return v2.read(binary_rows, binary, serving)


class Writer:
    """Writes one answer: `write` is called with the predictions, `reply` with the body that it made."""

    __slots__ = ("_json_bytes", "_mlserver", "_reply", "_request", "_service")

    def __init__(self, serving: Serving, request: v2.Request, reply: Reply) -> None:
        self._service = serving.route.service
        self._mlserver = v2.is_mlserver(serving)
        self._request = request
        self._reply = reply
        self._json_bytes = 0

    def write(self, predictions: list[Any], model: Model) -> bytes:
        """Return the answer's body."""
        outputs: list[Json] = []
        raws = []
        for found in v2.outputs_of(predictions, model, self._request, self._mlserver):
            output: Json = {"name": found.name, "shape": found.shape, "datatype": found.datatype}
            output["parameters"] = {"content_type": "np"} if self._mlserver else None
            if found.binary:
                raws.append(payloads_raw.encode(found.flat, found.datatype))
                output["parameters"] = {**(output["parameters"] or {}), payloads_v2.BINARY_SIZE: len(raws[-1])}
            else:
                output["data"] = found.flat
            outputs.append(output)
        if self._mlserver:
            answer: Json = {"model_name": self._service, "id": self._request.id, "parameters": {}, "outputs": outputs}
        else:
            answer = {"model_name": self._service, "model_version": None, "id": self._request.id, "parameters": None}
            answer["outputs"] = outputs
        text = _encode(answer)
        self._json_bytes = len(text)
        return b"".join((text, *raws)) if raws else text

    def reply(self, status: int, body: bytes, headers: Headers) -> None:
        """Answer; raw bytes are declared as such."""
        if status == 200:
            rest = [header for header in headers if header is not answers.JSON]
            headers = [_BINARY, (LENGTH, b"%d" % self._json_bytes), *rest]
        self._reply(status, body, headers)
