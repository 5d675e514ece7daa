"""A chain of ten trivial KFP steps: ours beside kfp's own local runner at its fastest settings, in the same run.

Ours: each step in a process of its own (forked from a warm worker), every state committed, outputs content-addressed.
kfp.local: `SubprocessRunner(use_venv=False)`, components with `install_kfp_package=False` (its default components take
about 2 s a step, with environments 9 s). Cold: a new process from the compiled YAML, ours with an empty home.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS, ROUNDS = 10, 3

_PIPELINE = f"""
from kfp import dsl

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def step(number: int) -> int:
    return number + 1

@dsl.pipeline(name="chain")
def chain(number: int = 0):
    last = step(number=number)
    for _ in range({STEPS - 1}):
        last = step(number=last.output)
"""

_COMPILE = """
import sys
from kfp import compiler
sys.path.insert(0, sys.argv[1])
import chain
compiler.Compiler().compile(chain.chain, sys.argv[1] + "/chain.yaml")
"""

_KFP_LOCAL = """
import json, sys, time
begin = time.perf_counter()
import logging
from kfp import components, local
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[1] + "/local", raise_on_error=True)
times = []
pipeline = components.load_component_from_file(sys.argv[1] + "/chain.yaml")
for number in range(int(sys.argv[2])):
    start = time.perf_counter()
    pipeline(number=number)
    times.append(time.perf_counter() - start)
    if number == 0:
        cold = time.perf_counter() - begin
print("\\n" + json.dumps({"cold": cold, "warm": min(times)}))
"""

_OURS_COLD = """
import sys
from pathlib import Path
from ondol.base.settings import Settings
from ondol.pipelines import runner
from ondol.store.connection import Store
home = Path(sys.argv[1])
settings = Settings(home=home, project=home)
with Store(settings.database) as store:
    runner.run(Path(sys.argv[2]), {}, store=store, settings=settings)
"""


def python(code: str, *arguments: str) -> tuple[float, str]:
    """Run code in a new interpreter; return seconds and what it printed last."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(done.stderr)
    return time.perf_counter() - start, (done.stdout.strip().splitlines() or [""])[-1]


def ours(folder: Path) -> dict[str, float]:
    """Measure our runner: per step warm, per step reused, and a cold process."""
    from ondol.base.settings import Settings
    from ondol.pipelines import runner
    from ondol.store.connection import Store

    settings = Settings(home=folder / "home", project=folder)
    warm, reused = [], []
    with Store(settings.database) as store:

        def run(number: int) -> Any:
            return runner.run(folder / "chain.yaml", {"number": number}, store=store, settings=settings)

        for number in range(ROUNDS):
            done = run(number * 1000)
            starts = [task.started_at for task in done.tasks]
            warm.append((starts[-1] - starts[0]) / (STEPS - 1))  # the first step waits for the worker to start
            start = time.perf_counter()
            run(number * 1000)
            reused.append((time.perf_counter() - start) / STEPS)
    cold = [
        python(_OURS_COLD, str(folder / f"cold{number}"), str(folder / "chain.yaml"))[0] for number in range(ROUNDS)
    ]
    return {"warm_step": min(warm), "reused_step": min(reused), "cold_process": statistics.median(cold)}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "chain.py").write_text(_PIPELINE, encoding="utf-8")
        python(_COMPILE, name)
        mine = ours(folder)
        _, said = python(_KFP_LOCAL, name, str(ROUNDS))
        theirs = json.loads(said)
    figures = {
        "steps": STEPS,
        "ours_ms_per_step": round(mine["warm_step"] * 1000, 2),
        "ours_ms_per_reused_step": round(mine["reused_step"] * 1000, 2),
        "ours_cold_process_s": round(mine["cold_process"], 3),
        "kfp_local_ms_per_step": round(theirs["warm"] / STEPS * 1000, 2),
        "kfp_local_cold_s": round(theirs["cold"], 3),
        "times_faster_per_step": round(theirs["warm"] / STEPS / mine["warm_step"], 1),
        "times_faster_cold": round(theirs["cold"] / mine["cold_process"], 1),
    }
    for key, value in figures.items():
        print(f"{key:>28}  {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
