"""What a warm worker may import before it forks, so that no step pays for it.

Only libraries that are known to survive a fork after being imported, and only when every component of the pipeline
imports them without first setting their environment. Must not import any of them itself.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable

from ondol.formats.kfp_container import PythonCode

_SETS_ENVIRONMENT = re.compile(r"\b(environ|putenv|set_num_threads)\b")
_SAFE = frozenset({"numpy", "pandas", "scipy", "sklearn", "joblib", "pyarrow"})


def modules(codes: Iterable[PythonCode]) -> tuple[str, ...]:
    """Return the modules to import beforehand for these components, in a stable order; often none."""
    if not sys.platform.startswith("linux"):
        return ()  # elsewhere numpy's own libraries do not survive a fork
    found: dict[str, None] = {}
    for code in codes:
        if code.env or _SETS_ENVIRONMENT.search(code.source):
            return ()  # a component may tell a library how many threads to use before it imports it
        for name in _imported(code.source):
            if name.split(".")[0] in _SAFE:
                found.setdefault(name)
    return tuple(found)


def _imported(source: str) -> list[str]:
    names: list[str] = []
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []  # the step itself will say so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
    return names
