"""YAML texts with Kubernetes objects: several documents, `kind: List`, anchors; and the line of every field.

Scalars are read as Kubernetes reads them (a date stays a string, `1:30` too), a key twice is refused, and a text whose
anchors unfold to more than anybody writes is refused before it is unfolded. Pure; must not know any kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from ondol.base import errors

Json = dict[str, Any]

MOST_NODES = 200_000
"""Values in one document, anchors unfolded: a hundred times the largest manifest there is."""

_INT = re.compile(r"^[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$")
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Document:
    """One resource, where it is written, and where its fields are."""

    manifest: Json
    source: str
    node: Any = None

    def line(self, path: str) -> int:
        """Return the line of a field such as `spec.predictor.env[0].name`, or of what is there on the way to it."""
        node, line, rest = self.node, self.node.start_mark.line, path
        while rest:
            found = _step(node, rest)
            if found is None:
                break
            node, line, rest = found
        return int(line) + 1

    def where(self, path: str) -> str:
        """Return `file:line` of a field."""
        return f"{self.source}:{self.line(path)}"


def _step(node: Any, path: str) -> tuple[Any, int, str] | None:
    """Return the node one step along a path, its line, and the rest; keys may have dots in them."""
    if path.startswith("["):
        index, _, rest = path[1:].partition("]")
        items = node.value if isinstance(node, yaml.SequenceNode) and index.isdigit() else []
        if not int(index or 0) < len(items):
            return None
        one = items[int(index)]
        return one, one.start_mark.line, rest.removeprefix(".")
    best: tuple[Any, int, str] | None = None
    longest = -1
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        name = str(key.value)
        if len(name) >= longest and (path == name or path.startswith((f"{name}.", f"{name}["))):
            longest, best = len(name), (value, key.start_mark.line, path[len(name) :].removeprefix("."))
    return best


class _Loader(_Base):  # type: ignore[misc]  # yaml has no types for its C loader
    """PyYAML's safe loader with Kubernetes' scalars."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Json:
        """Return a mapping with string keys.

        :raises yaml.constructor.ConstructorError: for a key that is there twice, or that is no scalar.
        """
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain value", key.start_mark)
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


def _construct_map(loader: Any, node: Any) -> Json:
    found: Json = loader.construct_mapping(node)
    return found


def _construct_int(loader: Any, node: Any) -> int:
    text = str(node.value).replace("_", "").lower()
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.lstrip("+"))
    for prefix, base in (("0b", 2), ("0x", 16), ("0o", 8)):
        if digits.startswith(prefix):
            return sign * int(digits[2:], base)
    return sign * (int(digits, 8) if len(digits) > 1 and digits.startswith("0") else int(digits))


def _construct_float(loader: Any, node: Any) -> float:
    text = str(node.value).lower().replace("_", "")
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0].rpartition(":")[2] not in ("timestamp", "int", "float")]
    for first, pairs in _Base.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_map)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def parse(text: str, source: str = "") -> list[Document]:
    """Return the resources in a YAML text; empty documents are skipped, `kind: List` is unrolled.

    :raises InputError: for broken YAML or a document that is no Kubernetes object, with the line.
    """
    found: list[Document] = []
    try:
        loader = _Loader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                if _size(node, {}) > MOST_NODES:
                    raise errors.InputError(
                        f"more than {MOST_NODES} values in one document",
                        where=f"{source}:{node.start_mark.line + 1}",
                        code="INP-300",
                    )
                found += _unrolled(Document(loader.construct_document(node), source, node))
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or error
        raise errors.InputError(f"not valid YAML: {reason}", where=f"{source}{line}", code="INP-010") from error
    except (RecursionError, ValueError) as error:
        raise errors.InputError(f"not valid YAML: {error}", where=source, code="INP-010") from error
    return found


def documents(text: str, source: str = "") -> list[Json]:
    """Return the resources in a YAML text as plain values; raises as `parse` does."""
    return [one.manifest for one in parse(text, source)]


def _size(node: Any, known: dict[int, int]) -> int:
    """Return how many values a node unfolds to; one that contains itself is endless."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MOST_NODES + 1  # while it is being counted: met again, it contains itself
    if isinstance(node, yaml.MappingNode):
        size = 1 + sum(1 + _size(value, known) for _, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        size = 1 + sum(_size(one, known) for one in node.value)
    else:
        size = 1
    known[id(node)] = size
    return size


def _unrolled(document: Document) -> list[Document]:
    manifest: Any = document.manifest
    node = document.node
    if manifest is None:
        return []
    where = f"{document.source}:{node.start_mark.line + 1}"
    if not isinstance(manifest, dict) or not isinstance(manifest.get("kind"), str):
        raise errors.InputError("not a Kubernetes object: it has no 'kind'", where=where, code="INP-010")
    if manifest["kind"] != "List" and not (manifest["kind"].endswith("List") and "items" in manifest):
        return [document]
    items = manifest.get("items") or []
    if not isinstance(items, list):
        raise errors.InputError("'items' must be a list", where=where, code="INP-010")
    nodes: list[Any] = next((value.value for key, value in node.value if key.value == "items"), [])
    return [
        one
        for item, inner in zip(items, nodes, strict=False)
        for one in _unrolled(Document(item, document.source, inner))
    ]
