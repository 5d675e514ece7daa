"""Turn a joblib or pickle file into the pickle that MLflow's scikit-learn flavour loads.

Run as a process of its own (`python -m ondol.registry.convert SOURCE TARGET`): unpickling runs the author's code, and
the control process must not. Prints one JSON line: what the model is and what it needs.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

_PACKAGES = ("scikit-learn", "numpy", "scipy", "pandas", "cloudpickle", "joblib", "lightgbm", "xgboost")
_NEEDED = ("scikit-learn", "numpy", "scipy", "cloudpickle")


def convert(source: Path, target: Path) -> dict[str, Any]:
    """Load the model, write it with cloudpickle, and say what it is."""
    import cloudpickle
    import joblib

    model = joblib.load(source)
    with target.open("wb") as file:
        cloudpickle.dump(model, file)
    modules = {name.partition(".")[0] for name in sys.modules}
    known = {"scikit-learn": "sklearn"}
    used = [name for name in _PACKAGES if name in _NEEDED or known.get(name, name) in modules]
    return {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "predicts": hasattr(model, "predict"),
        "features": [str(name) for name in getattr(model, "feature_names_in_", [])],
        "requirements": [f"{name}=={importlib.metadata.version(name)}" for name in used],
        "sklearn": importlib.metadata.version("scikit-learn"),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    print(json.dumps(convert(Path(sys.argv[1]), Path(sys.argv[2]))))
