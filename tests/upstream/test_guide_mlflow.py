"""The user guide's MLflow scripts, as they are printed there, against our control process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ControlProcess, shared_folder

PREAMBLE = """
import numpy as np
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
features, target = make_classification(n_samples=200, n_features=6, random_state=0)
model = RandomForestClassifier(n_estimators=10, random_state=0).fit(features, target)
data = features[:5]
losses = iter(np.linspace(1.0, 0.1, 100))
def train_epoch(): return float(next(losses))
def evaluate(): return 0.9
open("confusion_matrix.png", "wb").write(b"\\x89PNG")
"""


def guide_blocks(heading: str) -> str:
    """Return the Python blocks under one heading of the guide."""
    for path in sorted(shared_folder("guide").glob("*.txt")):
        found = re.search(rf"^### {heading}\n(.*?)(?=^###? |\Z)", path.read_text(encoding="utf-8"), re.M | re.S)
        if found:
            return "\n".join(re.findall(r"```python\n(.*?)```", found[1], re.S))
    pytest.fail(f"the guide has no section {heading!r}")


def run_script(text: str, url: str, folder: Path) -> str:
    """Run a script in a process of its own and return what it printed."""
    script = folder / "script.py"
    script.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "MLFLOW_TRACKING_URI": url, "MLFLOW_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def tracking_script(url: str) -> str:
    block = guide_blocks("실험 추적")
    assert 'set_tracking_uri("http://mlflow-server:5000")' in block
    return block.replace("http://mlflow-server:5000", url)


@pytest.mark.slow
def test_tracking_and_registry_as_printed(control: ControlProcess, tmp_path: Path) -> None:
    script = (
        PREAMBLE + "expected = model.predict(data)\n" + tracking_script(control.url) + guide_blocks("모델 레지스트리")
    )
    script += "\nprint('predictions', len(predictions), 'agree', (predictions == expected).all())\n"
    assert "predictions 5 agree True" in run_script(script, control.url, tmp_path)


@pytest.mark.slow
def test_runs_source_gives_a_version_that_loads(control: ControlProcess, tmp_path: Path) -> None:
    """With the id of the reader's own run for `abc123`: MLflow alone registers a version that cannot be loaded."""
    tracking = tracking_script(control.url).replace("my-experiment", "own-run")
    registry = guide_blocks("모델 레지스트리").replace("version=1", "version=result.version")
    registry = registry.replace('"abc123"', "RUN").replace('"runs:/abc123/model"', 'f"runs:/{RUN}/model"')
    script = PREAMBLE + tracking + "\nRUN = mlflow.last_active_run().info.run_id\n" + registry
    script += """
client.set_registered_model_alias("my-classifier", "champion", result.version)
again = mlflow.pyfunc.load_model("models:/my-classifier@champion").predict(data)
print("version", result.version, "same", (again == predictions).all(), "source", result.source)
"""
    printed = run_script(script.replace("my-classifier", "own-run"), control.url, tmp_path)
    assert "version 2 same True source models:/m-" in printed
