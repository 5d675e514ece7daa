"""Every peer's own environment, built once with uv below bench/.envs and kept until its list of packages changes.

scikit-learn is the one that wrote the models. MLServer's last release does not start with uvloop 0.22 and later.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / ".envs"
PACKAGES: dict[str, list[str]] = {
    "kserve": ["kserve"],
    "mlserver": ["mlserver", "mlserver-sklearn", "uvloop<0.22"],
    "mlflow": [f"mlflow=={importlib.metadata.version('mlflow')}"],
    "bentoml": ["bentoml"],
    "litserve": ["litserve"],
    "evidently": ["evidently", "pyarrow", "pandas<3"],
}
_BUILD_SECONDS = 600


def prepare(name: str) -> Path:
    """Return the Python of a peer's environment, building it when it is not there.

    :raises RuntimeError: with what uv said when it cannot be built.
    """
    folder = ROOT / name
    python = folder / "bin" / "python"
    wanted = [*PACKAGES[name], *(f"{one}=={importlib.metadata.version(one)}" for one in ("scikit-learn", "joblib"))]
    mark = folder / "packages.json"
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == wanted:
        return python
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for command in (
        [uv, "venv", "-q", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(python), *wanted],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"its environment cannot be built: {error}") from error
        if done.returncode:
            raise RuntimeError(f"its environment cannot be built: {done.stderr.strip()[-300:]}")
    mark.write_text(json.dumps(wanted), encoding="utf-8")
    return python


def version(name: str) -> str:
    """Return the version of a peer's package in its environment."""
    found = sorted((ROOT / name).glob(f"lib/python*/site-packages/{name}-*.dist-info"))
    return found[-1].name.removeprefix(f"{name}-").removesuffix(".dist-info") if found else ""
