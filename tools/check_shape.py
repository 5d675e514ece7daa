"""Fail when a file is longer than 500 lines, a function than 80, or an asset larger than 1 MB, unless listed below.

The lists may only shrink.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

MAX_FILE, MAX_FUNCTION = 500, 80
MAX_ASSET_BYTES = 1_000_000
LARGE_ASSETS = {"src/ondol/assets/docs_vectors.npz"}
"""The demo's assistant needs the documentation's vectors; embedding them on a fresh machine takes minutes."""

LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()


def problems(root: Path) -> list[str]:
    """Return one line per file or function over its limit, and per exception that is not needed any more."""
    found: list[str] = []
    used: set[str] = set()
    for folder in ("src", "tests", "bench", "tools", "examples"):
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if any(part.startswith(".") for part in path.relative_to(root).parts):
                continue  # environments that benchmarks make for the peers
            text = path.read_text(encoding="utf-8")
            if (lines := text.count("\n") + 1) > MAX_FILE:
                used.add(name)
                if name not in LONG_FILES:
                    found.append(f"{name}: {lines} lines (limit {MAX_FILE})")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    length = (node.end_lineno or node.lineno) - node.lineno + 1
                    key = f"{name}:{node.name}"
                    if length > MAX_FUNCTION:
                        used.add(key)
                        if key not in LONG_FUNCTIONS:
                            found.append(f"{name}:{node.lineno}: {node.name} has {length} lines (limit {MAX_FUNCTION})")
    for name, size in _large_assets(root):
        used.add(name)
        if name not in LARGE_ASSETS:
            found.append(f"{name}: {size} bytes (limit {MAX_ASSET_BYTES})")
    exceptions = LONG_FILES | LONG_FUNCTIONS | LARGE_ASSETS
    found.extend(f"{name}: listed as an exception and no longer one" for name in sorted(exceptions - used))
    return found


def _large_assets(root: Path) -> list[tuple[str, int]]:
    """Return the path and bytes of every asset over the limit."""
    files = [path for path in sorted((root / "src" / "ondol" / "assets").rglob("*")) if path.is_file()]
    sizes = [(path.relative_to(root).as_posix(), path.stat().st_size) for path in files]
    return [(name, size) for name, size in sizes if size > MAX_ASSET_BYTES]


if __name__ == "__main__":
    lines = problems(Path(__file__).resolve().parent.parent)
    print("\n".join(lines) or "shape: ok")
    sys.exit(1 if lines else 0)
