"""Model files of the champion and of its mutants, in one disguise: what is not compiled is slower than what is.

A mutant is Python around the champion's model, so the champion of a drill is that, too, with nothing changed: else a
judge that watches latency would find every mutant by its wrapping. Must not serve or judge.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from ondol.base import errors
from ondol.store.blobs import Blobs

FORMAT = "sklearn"
"""KServe's name for what is written: a Python object with the methods of scikit-learn."""


def load(blobs: Blobs, artifact: str) -> Any:
    """Load a champion in this process, to make mutants of it.

    :raises StateError: STA-453 when it cannot be wrapped.
    """
    from ondol.serving import loading

    try:
        return loading.load(blobs.path(artifact)).model
    except errors.OndolError as error:
        raise errors.StateError(f"no mutant can be made of the champion: {error.message}", code="STA-453") from error


def put(blobs: Blobs, artifact: str, model: Any) -> str:
    """Store a model in place of the champion's, beside everything else that its files say (signature …)."""
    source = blobs.path(artifact)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        if (source / "MLmodel").is_file():
            shutil.copytree(source, folder)
            said = yaml.safe_load((source / "MLmodel").read_text(encoding="utf-8"))
            file = folder / str(said["flavors"].get("sklearn", {}).get("pickled_model", "model.pkl"))
        else:
            folder.mkdir()
            file = folder / "model.pkl"
        file.write_bytes(pickle.dumps(model))
        return blobs.put_path(folder)
