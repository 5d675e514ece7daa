"""Bodies as they come over the wire: compressed ones are inflated, within the limit. Must not read what they say."""

from __future__ import annotations

import zlib

from ondol.api.kserve import answers
from ondol.base import errors
from ondol.serving import inputs

SMALL_BYTES = 4 * 1024
"""A compressed body of so few bytes is inflated at once: it holds no more than some megabytes."""

USUAL_RATIO = 20
"""More than numbers as text can be compressed by; what it may need is booked before it is inflated."""

_PART_BYTES = 1024 * 1024


def inflated(headers: dict[bytes, bytes], body: bytes) -> bytes:
    """Return the body as it was before the client compressed it.

    :raises InputError: INP-374 for another encoding than gzip or deflate or broken data, INP-208 when too big.
    """
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding == b"identity":
        return body
    if encoding not in (b"gzip", b"deflate"):
        message, way_out = f"content encoding {encoding.decode('latin-1')!r} is not served", "Send gzip or deflate."
        raise errors.InputError(message, where="Content-Encoding", way_out=way_out, code="INP-374")
    engine = zlib.decompressobj(wbits=47)  # gzip or zlib, whichever the header of the data says
    parts: list[bytes] = []
    left = answers.MAX_BODY_BYTES + 1
    try:
        while left > 0 and (part := engine.decompress(body, min(left, _PART_BYTES))):
            parts.append(part)
            body, left = engine.unconsumed_tail, left - len(part)
    except zlib.error as error:
        raise inputs.wrong(f"not {encoding.decode()} data: {error}", "$", "INP-374") from None
    found = b"".join(parts)
    if len(found) > answers.MAX_BODY_BYTES:
        raise answers.too_big()
    if not engine.eof or engine.unused_data:
        raise inputs.wrong(f"not {encoding.decode()} data: it ends too early or too late", "$", "INP-374")
    return found
