"""KFP pipelines of trivial steps: ours beside kfp's local runner, ZenML, Metaflow, Prefect and Dagster, in one run.

Two shapes: a chain of ten steps, and ten side by side. `python bench/pipelines.py [--quick]`; `--quick` measures twice
instead of four times. Each peer has an environment of its own (bench/.venvs, built once with uv); one that cannot be
installed or fails is reported, not fatal. Cold: a new process with an empty home, from the compiled YAML where there is
one. What each persists is said beside its figures, for it is part of the price.

A step of ours is the time between two steps' starts. Every run of ours starts a worker, which is not in that, but in
`ten_steps`, a whole run in a warm process; a peer's step is a tenth of its whole run. The last line has the ratios of
both, and under `claims` what Ondol claims and whether it held.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS = 10
HERE = Path(__file__).resolve().parent
PATIENCE = 300.0  # seconds for one peer

_PIPELINE = f"""
from typing import List
from kfp import dsl

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def step(number: int) -> int:
    return number + 1

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def total(numbers: List[int]) -> float:
    return float(sum(numbers))  # kfp's local runner turns integers inside lists into floats

@dsl.component(base_image="python:3.11", packages_to_install=["humanize"])
def packaged(number: int) -> int:
    import humanize
    return number + len(humanize.intcomma(1))

@dsl.pipeline(name="chain")
def chain(number: int = 0):
    last = step(number=number)
    for _ in range({STEPS - 1}):
        last = step(number=last.output)

@dsl.pipeline(name="wide")
def wide(number: int = 0):
    with dsl.ParallelFor(list(range({STEPS}))) as item:
        one = step(number=item)
    total(numbers=dsl.Collected(one.output))

@dsl.pipeline(name="packages")
def packages(number: int = 0):
    packaged(number=packaged(number=number).output)
"""

_COMPILE = """
import sys
from kfp import compiler
sys.path.insert(0, sys.argv[1])
import bench_flows
for name in ("chain", "wide", "packages"):
    compiler.Compiler().compile(getattr(bench_flows, name), f"{sys.argv[1]}/{name}.yaml")
"""

_KFP_LOCAL = """
import json, sys, time
begin = time.perf_counter()
from kfp import components, local
folder, rounds = sys.argv[1], int(sys.argv[2])
def start(**how):
    local.init(runner=local.SubprocessRunner(**how), pipeline_root=folder + "/local", raise_on_error=True)
def measured(name, count):
    pipeline, times = components.load_component_from_file(f"{folder}/{name}.yaml"), []
    for number in range(count):
        start = time.perf_counter()
        pipeline(number=number)
        times.append(time.perf_counter() - start)
    return min(times)
start(use_venv=False)
measured("chain", 1)
cold = time.perf_counter() - begin
figures = {"cold": cold, "chain": measured("chain", rounds), "wide": measured("wide", 1)}
start(use_venv=True)
figures["environment_step"] = measured("packages", 1) / 2
print("\\n" + json.dumps(figures))
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
    runner.run(Path(sys.argv[2]), {}, store=store, settings=settings, in_process=sys.argv[3] == "True")
"""

OURS = {"ondol": False, "ondol --in-process": True}
"""Our two modes, and whether steps share processes in them."""

CLAIMS: dict[str, tuple[str, str, float, tuple[str, ...]]] = {
    "step_in_process_10x": (
        "ondol --in-process",
        "chain_step",
        10.0,
        ("kfp.local", "zenml", "metaflow", "dagster"),
    ),
    "step_with_environment_50x": ("ondol", "environment_step", 50.0, ("kfp.local",)),
    "cold_ten_steps_faster_than_all": ("ondol", "cold", 1.0, ("kfp.local", "zenml", "metaflow", "dagster", "prefect")),
}
"""What is claimed: the mode of ours, the figure, how many times as much every one of these peers must take."""

PEERS = {
    "prefect": (["prefect", "fastapi<0.140"], "prefect_flow.py", "task states in SQLite; results in memory"),
    "dagster": (["dagster"], "dagster_job.py", "events in SQLite, outputs in files; all steps in one process"),
    "zenml": (["zenml[local]"], "zenml_pipeline.py", "runs in SQLite, outputs as artifacts in files; one process"),
    "metaflow": (["metaflow", "setuptools<81"], "metaflow_flow.py", "state and artifacts in files; a process a step"),
}
"""Each peer: what is installed, its flow, and what it persists.

Prefect asks for any FastAPI below 1, but its server did not start with FastAPI 0.165.
"""


def python(
    code: list[str], *arguments: str, program: str = sys.executable, patience: float = 600.0, **environ: str
) -> tuple[float, str]:
    """Run Python in a new process; return seconds and what it printed last.

    :raises RuntimeError: with its last words when it fails.
    """
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [program, "-W", "ignore", *code, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=patience,
            env={**os.environ, **environ},
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"it took more than {patience:g} s") from None
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-300:])
    return time.perf_counter() - start, (done.stdout.strip().splitlines() or [""])[-1]


def ours(folder: Path, in_process: bool, rounds: int) -> dict[str, Any]:
    """Measure one of our modes: a step warm, reused, in an environment of its own; ten side by side; a cold process."""
    from ondol.base.settings import Settings
    from ondol.pipelines import runner
    from ondol.store.connection import Store

    settings = Settings(home=folder / f"home-{in_process}", project=folder)
    warm, reused, side, packaged, whole = [], [], [], [], []
    with Store(settings.database) as store:

        def run(name: str, number: int, use_cache: bool = True) -> Any:
            return runner.run(
                folder / f"{name}.yaml",
                {"number": number},
                store=store,
                settings=settings,
                use_cache=use_cache,
                in_process=in_process,
            )

        def between(name: str, number: int) -> float:
            """Return seconds from one step's start to the next, after the first, which waits for the worker."""
            starts = [task.started_at for task in run(name, number).tasks if not task.graph][1:]
            return float(starts[-1] - starts[0]) / (len(starts) - 1)

        run("packages", -1000)  # the environment is built once
        for number in range(rounds):
            start = time.perf_counter()
            warm.append(between("chain", number * 1000))
            whole.append(time.perf_counter() - start)
            start = time.perf_counter()
            run("chain", number * 1000)
            reused.append((time.perf_counter() - start) / STEPS)
            start = time.perf_counter()
            run("packages", number * 1000)  # far apart, or a step of one would be reused in the next
            packaged.append((time.perf_counter() - start) / 2)  # as kfp's own runner is measured
            begin = time.perf_counter()
            run("wide", number, use_cache=False)
            side.append(time.perf_counter() - begin)
    cold = [
        python(
            ["-c", _OURS_COLD], str(folder / f"cold-{in_process}-{number}"), str(folder / "chain.yaml"), str(in_process)
        )[0]
        for number in range(rounds)
    ]
    return {
        "cold": statistics.median(cold),
        "chain_step": min(warm),
        "ten_steps": min(whole),
        "reused_step": min(reused),
        "environment_step": min(packaged),
        "wide": min(side),
        "persists": f"every state, input, output and log; {'warm processes' if in_process else 'a process a step'}",
    }


def kfp_local(folder: Path, rounds: int) -> dict[str, Any]:
    """Measure kfp's own local runner: without environments and kfp's own packages, its fastest mode, and with them."""
    figures = json.loads(python(["-c", _KFP_LOCAL], str(folder), str(rounds))[1])
    return {**_named(figures), "persists": "outputs in files; no record of runs"}


def _named(figures: dict[str, Any]) -> dict[str, Any]:
    """Name what a peer said of its whole run like ours."""
    return {"chain_step": figures["chain"] / STEPS, "ten_steps": figures.pop("chain"), **figures}


def peer(name: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Measure one peer in an environment of its own."""
    packages, flow, persists = PEERS[name]
    program, home = installed(name, packages), folder / name
    home.mkdir()
    environ = {
        **{variable: str(home) for variable in ("PREFECT_HOME", "DAGSTER_HOME", "ZENML_CONFIG_PATH", "METAFLOW_HOME")},
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(home),
        "METAFLOW_USER": "bench",
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "ZENML_LOGGING_VERBOSITY": "ERROR",
        "ZENML_ANALYTICS_OPT_IN": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    file = str(HERE / "peers" / "pipelines" / flow)
    if name == "metaflow":  # a flow is a program of its own: there is no warm process
        whole = min(_metaflow(program, file, environ) for _ in range(rounds // 2))
        side = _metaflow(program, file.replace("_flow", "_wide"), environ)
        return {"cold": whole, **_named({"chain": whole}), "wide": side, "persists": persists}
    figures = json.loads(python([file], str(rounds), program=program, patience=PATIENCE, **environ)[1])
    return {**_named(figures), "persists": persists}


def _metaflow(program: str, file: str, environ: dict[str, str]) -> float:
    return python([file], "--no-pylint", "run", program=program, patience=PATIENCE, **environ)[0]


def installed(name: str, packages: list[str]) -> str:
    """Return the interpreter of a peer's environment, built when it is not there."""
    import uv

    folder = HERE / ".venvs" / name
    program = folder / "bin" / "python"
    if not (folder / "ready").exists():
        for words in (["venv", "--clear", str(folder)], ["pip", "install", "--python", str(program), *packages]):
            subprocess.run([uv.find_uv_bin(), *words, "--quiet"], check=True, timeout=600)
        (folder / "ready").touch()
    return str(program)


def show(name: str, figures: dict[str, Any]) -> None:
    """Print one line of the table."""
    if "failed" in figures:
        print(f"{name:>18}  not measured: {figures['failed']}", flush=True)
        return
    step, cold, side = figures["chain_step"] * 1000, figures["cold"], figures["wide"]
    whole = figures["ten_steps"]
    print(
        f"{name:>18}  {step:9.1f} ms a step  {whole:7.2f} s ten steps  {cold:7.2f} s cold  {side:7.2f} s side by side",
        flush=True,
    )
    print(f"{'':>18}  {figures['persists']}", flush=True)


def claims(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return for each claim how many times as much each peer takes, and whether it holds; None: a peer is missing."""
    found = {}
    for claim, (mode, figure, bar, peers) in CLAIMS.items():
        mine = results[mode][figure]
        times = {name: round(results[name][figure] / mine, 2) for name in peers if figure in results[name]}
        held = min(times.values(), default=0.0) >= bar if len(times) == len(peers) else None
        found[claim] = {"held": held, "times": times, "missing": [name for name in peers if name not in times]}
        print(f"{claim}: {held}  " + "  ".join(f"{name} {ratio:g}x" for name, ratio in times.items()), flush=True)
    return found


def main(quick: bool = False) -> None:
    rounds = 2 if quick else 4
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "bench_flows.py").write_text(_PIPELINE, encoding="utf-8")
        python(["-c", _COMPILE], place)
        for name, in_process in OURS.items():
            results[name] = ours(folder, in_process, rounds)
            show(name, results[name])
        for name in ("kfp.local", *PEERS):
            try:
                results[name] = kfp_local(folder, rounds) if name == "kfp.local" else peer(name, folder, rounds)
            except (RuntimeError, OSError, subprocess.SubprocessError, ValueError) as error:
                results[name] = {"failed": str(error)[-300:]}
            show(name, results[name])
    mine, inside = results["ondol"], results["ondol --in-process"]
    for theirs in results.values():
        if "chain_step" in theirs:
            theirs["times_ours_per_step"] = round(theirs["chain_step"] / mine["chain_step"], 2)
            theirs["times_ours_per_step_in_process"] = round(theirs["chain_step"] / inside["chain_step"], 2)
            theirs["times_ours_ten_steps"] = round(theirs["ten_steps"] / mine["ten_steps"], 2)
            theirs["times_ours_cold"] = round(theirs["cold"] / mine["cold"], 2)
    machine = {"load_average": round(os.getloadavg()[0], 1), "processors": os.cpu_count()}
    print(json.dumps({"steps": STEPS, "rounds": rounds, **machine, "claims": claims(results), **results}))


if __name__ == "__main__":
    main(quick="--quick" in sys.argv[1:])
