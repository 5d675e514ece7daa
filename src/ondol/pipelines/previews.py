"""What an artifact looks like: numbers, curves, tables, pages and the beginning of texts, as plain values.

Must not draw anything: pages and the command line do, from the same preview.
Formats: kfp's `Metrics`, `ClassificationMetrics` (metadata), `HTML`, `Markdown` and any file.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ondol.records.pipeline import Artifact

_LONGEST = 4000  # characters of a text that are shown
_ROWS, _COLUMNS = 6, 12


@dataclass(frozen=True, slots=True)
class Preview:
    """One artifact, ready to be shown."""

    kind: Literal["metrics", "classification", "html", "markdown", "table", "text", "folder", "nothing"]
    text: str = ""
    """The text, page or list of files; its beginning when it is long."""

    numbers: dict[str, Any] = field(default_factory=dict)
    """Metrics and other metadata by name."""

    curve: tuple[tuple[float, float], ...] = ()
    """A ROC curve: false positive rate and recall, in the order of the thresholds."""

    labels: tuple[str, ...] = ()
    """Of the confusion matrix, or the columns of a table."""

    rows: tuple[tuple[Any, ...], ...] = ()
    """Of the confusion matrix (true class by row), or of a table."""


def of(artifact: Artifact) -> Preview:
    """Return what an artifact looks like; a file that is gone or no text gives its metadata only."""
    kind = artifact.type.removeprefix("system.")
    if kind in ("ClassificationMetrics", "SlicedClassificationMetrics"):
        return _classification(artifact.metadata)
    numbers = {name: value for name, value in artifact.metadata.items() if isinstance(value, (int, float, str, bool))}
    if kind == "Metrics":
        return Preview("metrics", numbers=numbers)
    path = Path(artifact.path)
    if path.is_dir():
        files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
        return Preview("folder", "\n".join(files[:100]), numbers)
    text = _text(path)
    if not text:
        return Preview("nothing", numbers=numbers)
    if kind in ("HTML", "Markdown"):
        return Preview("html" if kind == "HTML" else "markdown", text, numbers)
    return _table(text, numbers) or Preview("text", text[:_LONGEST], numbers)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(_LONGEST * 64)
    except OSError:
        return ""
    text = start.decode("utf-8", errors="ignore")
    return "" if "\0" in text or len(text.encode()) < len(start) - 3 else text


def _table(text: str, numbers: dict[str, Any]) -> Preview | None:
    lines = [line for line in text.splitlines()[: _ROWS + 1] if line]
    rows = list(csv.reader(io.StringIO("\n".join(lines))))
    if len(rows) < 2 or len(rows[0]) < 2 or len({len(row) for row in rows}) != 1:
        return None
    cut = [tuple(row[:_COLUMNS]) for row in rows]
    return Preview("table", numbers=numbers, labels=cut[0], rows=tuple(cut[1:]))


def _classification(metadata: dict[str, Any]) -> Preview:
    points = metadata.get("confidenceMetrics") or []
    curve = tuple(
        (float(point.get("falsePositiveRate", 0)), float(point.get("recall", 0)))
        for point in points
        if isinstance(point, dict)
    )
    matrix = metadata.get("confusionMatrix") or {}
    labels = tuple(str(label.get("displayName", "")) for label in matrix.get("annotationSpecs", []))
    rows = tuple(tuple(row.get("row", [])) for row in matrix.get("rows", []))
    return Preview("classification", curve=curve, labels=labels, rows=rows)
