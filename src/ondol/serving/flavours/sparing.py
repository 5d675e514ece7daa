"""Imports scikit-learn without pandas.

scikit-learn looks for pandas when it is imported and, for models of numbers, never uses it; pandas and what it brings
along are a third of a serving process' memory and start. Models that need data frames import it themselves, later.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def import_sklearn() -> None:
    """Import scikit-learn, pretending for that moment that there is no pandas.

    To be called before anything else in the process may want pandas: another thread would not find it meanwhile.
    """
    if "sklearn" in sys.modules or "pandas" in sys.modules:
        return
    modules: dict[str, Any] = sys.modules
    modules["pandas"] = None  # what Python itself puts there for "not to be imported"
    try:
        importlib.import_module("sklearn")
    finally:
        del modules["pandas"]
