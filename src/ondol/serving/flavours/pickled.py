"""Estimators written as pickle, joblib or skops: scikit-learn's, and whatever library keeps its interface.

Unpickling runs the file's own code; the caller has checked the digest and looked at the imports.
"""

from __future__ import annotations

import importlib.metadata
import pickle
from pathlib import Path
from typing import Any

from ondol.base import errors
from ondol.serving.flavours import sparing

_TRUSTED = ("sklearn.", "numpy.", "scipy.", "xgboost.", "lightgbm.", "catboost.", "collections.OrderedDict")
"""Types whose own code is run when a skops file is read: the libraries' that are installed, never the file's."""


def load(file: Path, *, is_pickle: bool) -> Any:
    """Return the object in a file.

    :raises InputError: INP-222 when it cannot be loaded.
    """
    try:
        sparing.import_sklearn()
        if not is_pickle:
            return _open_skops(file)
        import joblib

        return joblib.load(file)
    except errors.OndolError:
        raise
    except (ImportError, AttributeError) as error:
        raise errors.InputError(
            f"{file.name!r} needs code that is not installed here: {error}",
            where=str(file),
            way_out="Install the package the model was made with beside ondol.",
            code="INP-222",
        ) from error
    except (pickle.UnpicklingError, OSError, EOFError, ValueError, TypeError, KeyError, IndexError) as error:
        raise errors.InputError(
            f"{file.name!r} cannot be loaded: {type(error).__name__}: {error}", where=str(file), code="INP-222"
        ) from error


def _open_skops(file: Path) -> Any:
    import skops.io

    unknown = skops.io.get_untrusted_types(file=file)
    foreign = [name for name in unknown if not name.startswith(_TRUSTED)]
    if foreign:
        raise errors.InputError(
            f"{file.name!r} holds types outside the model libraries: {', '.join(sorted(foreign)[:5])}",
            where=str(file),
            code="INP-222",
        )
    return skops.io.load(file, trusted=unknown)


def check_version(package: str, theirs: str, path: Path) -> None:
    """Compare the version a model was saved with to the installed one.

    :raises InputError: INP-223 when they differ in more than the last number.
    """
    ours = importlib.metadata.version(package)
    if theirs and theirs.split(".")[:2] != ours.split(".")[:2]:
        raise errors.InputError(
            f"the model was saved with {package} {theirs!r}, this process has {ours!r}",
            where=str(path),
            way_out=f"Train it again with {package} {ours}, or install ondol beside {package}=={theirs}.",
            code="INP-223",
        )
