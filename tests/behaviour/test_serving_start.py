"""How the data plane starts: models first, the door to language models behind them, ready when both are there."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.behaviour import serving_tools
from tests.behaviour.serving_tools import READY_SECONDS, wait

pytestmark = pytest.mark.slow

PROGRAM = """
import sys, threading
from ondol.serving.flavours import sparing

found = []
def other():  # while scikit-learn is being imported
    while "sklearn" not in sys.modules:
        pass
    import pandas
    found.append(pandas)

if sys.argv[1] == "together":
    thread = threading.Thread(target=other)
    thread.start()
    sparing.import_sklearn()
    thread.join()
    assert found
else:
    sparing.import_sklearn()
    assert "pandas" not in sys.modules
    import pandas
"""


@pytest.mark.parametrize("how", ["alone", "together"])
def test_scikit_learn_comes_without_pandas_and_other_threads_find_it(how: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr


def test_whoever_asks_for_language_models_early_is_answered(tmp_path: Path) -> None:
    process, address = serving_tools.start(tmp_path, subprocess.DEVNULL, cwd=tmp_path)
    try:
        statuses: list[int] = []

        def answered() -> bool:
            try:
                statuses.append(httpx.get(f"{address.url}/openai/v1/models", timeout=60).status_code)
            except httpx.TransportError:
                return False
            return True

        wait(answered)
        assert statuses == [200]
        wait(lambda: httpx.get(f"{address.url}/readyz", timeout=60).status_code == 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(READY_SECONDS) == 0
    finally:
        process.kill()


def test_a_broken_project_ends_the_process_and_the_log_says_why(tmp_path: Path) -> None:
    (tmp_path / "ondol.yaml").write_text("name: [\n", encoding="utf-8")
    with (tmp_path / "log").open("wb") as output:
        process, address = serving_tools.start(tmp_path, output, cwd=tmp_path)
        try:
            ready = False
            deadline = time.monotonic() + READY_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    ready = ready or httpx.get(f"{address.url}/readyz").status_code == 200
                except httpx.TransportError:
                    time.sleep(0.02)
            assert process.poll() is not None
            assert not ready
        finally:
            process.kill()
    assert "the door to language models cannot be opened" in (tmp_path / "log").read_text()
