"""What the pipeline tests share: the samples, compiled once by the real SDK in a process of its own."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ondol.base.settings import Settings
from ondol.pipelines import runner
from ondol.records.pipeline import PipelineRun
from ondol.store.connection import Store

FEATURES = Path(__file__).with_name("samples") / "features.py"

_COMPILE = """
import sys, warnings
warnings.simplefilter("ignore")
from kfp import compiler
from kfp.dsl.graph_component import GraphComponent
sys.path.insert(0, sys.argv[1])
module = __import__(sys.argv[3])
for name, value in vars(module).items():
    if isinstance(value, GraphComponent):
        compiler.Compiler().compile(value, f"{sys.argv[2]}/{name}.yaml")
"""


def compile_samples(folder: Path, module: str = "features") -> Path:
    """Put every sample pipeline of a module at `folder/NAME.yaml`."""
    for name, text in _compiled(module).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@functools.cache
def _compiled(module: str) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", _COMPILE, str(FEATURES.parent), folder, module], check=True)
        return {path.name: path.read_text(encoding="utf-8") for path in Path(folder).iterdir()}


def run(
    path: Path, store: Store, home: Settings, parameters: Mapping[str, Any] | None = None, **options: Any
) -> PipelineRun:
    """Run a pipeline in a test's home."""
    return runner.run(path, parameters or {}, store=store, settings=home, **options)


def task(record: PipelineRun, name: str) -> Any:
    """Return a task's outcome."""
    found = record.task(name)
    assert found is not None, [one.name for one in record.tasks]
    return found


def alive(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(holds: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for something that other processes bring about."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
