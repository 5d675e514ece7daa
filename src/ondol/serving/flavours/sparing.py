"""Imports scikit-learn without pandas.

scikit-learn looks for pandas when it is imported and, for models of numbers, never uses it; pandas and what it brings
along are a third of a serving process' memory and start. Models that need data frames import it themselves, later.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder


class _Hiding(MetaPathFinder):
    """Says that there is no pandas, to threads that import scikit-learn; any other thread finds it meanwhile."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> None:
        if fullname == "pandas" and threading.get_ident() in self.threads:
            raise ModuleNotFoundError("pandas is not imported together with scikit-learn", name=fullname)


_hiding = _Hiding()


def import_sklearn() -> None:
    """Import scikit-learn, pretending to this thread that there is no pandas, unless one of them is there already."""
    if "sklearn" in sys.modules or "pandas" in sys.modules:
        return
    if _hiding not in sys.meta_path:
        sys.meta_path.insert(0, _hiding)  # for good: if it were taken out, a thread at the list would miss the next one
    me = threading.get_ident()
    _hiding.threads.add(me)
    try:
        importlib.import_module("sklearn")
    finally:
        _hiding.threads.discard(me)
