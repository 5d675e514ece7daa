"""Compiled pipelines as they arrive: a YAML or JSON file, or an archive with one inside.

Must not unpack to disk: what counts is one text.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from typing import Any

from ondol.base import errors
from ondol.formats import kfp_ir

Json = dict[str, Any]
MAX_BYTES = 32 * 1024 * 1024
_ENDINGS = (".yaml", ".yml", ".json")


def read(content: bytes, name: str) -> Json:
    """Return the spec in an uploaded file.

    :raises InputError: INP-534 for what holds no compiled pipeline.
    """
    text = _text(content, name)
    try:
        documents = [json.loads(text)] if text.lstrip().startswith("{") else kfp_ir.documents(text, name)
    except ValueError:
        documents = kfp_ir.documents(text, name)
    if not documents or len(documents) > 2 or not all(isinstance(one, dict) for one in documents):
        raise _bad("it is not one compiled pipeline", name)
    if len(documents) == 2:
        return {"pipeline_spec": documents[0], "platform_spec": documents[1]}
    return dict(documents[0])


def _text(content: bytes, name: str) -> str:
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                sizes = {one.filename: one.file_size for one in archive.infolist()}
                content = archive.read(_one_of(sizes, name))
        elif content[:2] == b"\x1f\x8b":
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
                sizes = {one.name: one.size for one in tar.getmembers() if one.isfile()}
                member = tar.extractfile(_one_of(sizes, name))
                content = member.read() if member is not None else b""
        return content.decode()
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, UnicodeDecodeError) as error:
        raise _bad(f"it cannot be read: {error}", name) from error


def _one_of(sizes: dict[str, int], name: str) -> str:
    """Choose as kfp's client does: the only YAML, or `pipeline.yaml` among several."""
    found = [one for one in sizes if one.endswith(_ENDINGS)]
    chosen = found[0] if len(found) == 1 else "pipeline.yaml"
    if chosen not in sizes:
        raise _bad(f"it holds {len(found)} pipeline files and none is called 'pipeline.yaml'", name)
    if sizes[chosen] > MAX_BYTES:
        raise _bad(f"{chosen!r} in it is larger than {MAX_BYTES} bytes", name)
    return chosen


def _bad(message: str, name: str) -> errors.InputError:
    return errors.InputError(
        message, where=name, way_out="Upload what `kfp dsl compile` wrote: .yaml, .zip or .tar.gz.", code="INP-534"
    )
