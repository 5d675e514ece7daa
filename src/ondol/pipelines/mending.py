"""Writes `.output` where a pipeline file passes an importer's task instead of its artifact.

The one fix that kfp itself demands and does not name. Pure: text in, text out. Must not compile anything.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator


def mended(text: str) -> str:
    """Return the text of a pipeline file with `.output` behind every importer that is passed on as an argument.

    An importer is a call of `importer`, by whatever path, or a name that nothing but such a call is assigned to. Text
    that is no Python comes back as it is.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return text
    lines = text.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    written = text.encode()
    ends = {starts[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0) for node in _passed_on(tree)}
    for end in sorted(ends, reverse=True):
        written = written[:end] + b".output" + written[end:]
    return written.decode()


def _passed_on(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield the arguments that are importers' tasks."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        names = _importers(function)
        for call in ast.walk(function):
            if not isinstance(call, ast.Call) or (isinstance(call.func, ast.Attribute) and call.func.attr == "after"):
                continue
            for value in (*call.args, *(word.value for word in call.keywords)):
                if _is_importer(value) or (isinstance(value, ast.Name) and value.id in names):
                    yield value


def _is_importer(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "importer"


def _importers(function: ast.FunctionDef) -> set[str]:
    """Return the names that are assigned once in a function, from an importer."""
    assigned: dict[str, list[bool]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        assigned.setdefault(name.id, []).append(
                            isinstance(target, ast.Name) and _is_importer(node.value)
                        )
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            assigned.setdefault(node.id, [])
    return {name for name, kinds in assigned.items() if kinds == [True]}
