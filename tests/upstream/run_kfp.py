"""Runs Kubeflow Pipelines' own samples and compiled test pipelines here and prints what became of each.

    python tests/upstream/run_kfp.py DIR [--only TEXT] [--parallel 2] [--seconds 120] [--json FILE]

DIR is a checkout of kubeflow/pipelines, or any folder of it. Every file that holds a pipeline (compiled, or Python that
declares one) runs with `ondol run` in a home and a project of its own, with stated or type-right values for its
parameters, upstream's own test secrets, and one rule: an image of plain programs (Python, Alpine, Bash, Busybox) means
this machine. A file ends as one of:

- `runs`: it succeeded with outputs of the declared types and, where upstream's own test states a value, that value;
  or it failed and is meant to fail;
- `refused`: nothing ran, and the reason names what the file asks for;
- `does not compile`: kfp itself, or Python, refuses the file;
- `needs the world`: it needs an address, a service or a program that this machine does not have;
- `disputed`: it contradicts kfp's documentation or itself, as said beside it;
- `too long`: it sleeps longer than the time limit by itself;
- `wrong`: anything else.

The last line is one JSON object. Nothing of upstream's is kept. Compiling the `.py` files that use `kfp.kubernetes`
needs the package kfp-kubernetes beside kfp.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.pipelines import compiling
from ondol.pipelines.compiling import Compiled
from ondol.store.connection import Store

STATED: dict[str, dict[str, Any]] = {
    "add_numbers": {"a": 5, "b": 5},
    "concat_message": {"message1": "Hello ", "message2": "World!"},
    "identity": {"value": "test_value"},
    "dict_input": {"struct": {"test_key": "test_value"}},
    "component_with_env_variable": {"var_name": "KFP_TEST_ENV_VAR"},
    "notebook_component_simple": {"text": "hello"},
    "env-var": {"env_var": "PATH"},
    "env_var": {"env_var": "PATH"},
    "take_nap": {"naptime_secs": 1},
    "take_nap_compiled": {"naptime_secs": 1},
    "take_nap_pipeline_root": {"naptime_secs": 1},
    "take_nap_pipeline_root_compiled": {"naptime_secs": 1},
    "local_execution_pipeline_with_exit_handler": {"message": "hi"},
    "local_execution_pipeline_with_oneof": {"pick_a": True},
    "local_execution_pipeline_with_k8s_only_methods": {"message": "hello"},
}
"""Parameters that upstream's own tests state, or that a file needs to mean something, by file name."""

MADE: dict[str, Any] = {
    "STRING": "text",
    "NUMBER_INTEGER": 3,
    "NUMBER_DOUBLE": 0.5,
    "BOOLEAN": True,
    "LIST": ["a", "b"],
    "STRUCT": {"key": "value"},
}
"""A value of each type, for parameters without a default."""

EXPECTED: dict[str, list[Any]] = {
    "add_numbers": [10],
    "concat_message": ["Hello World!"],
    "identity": ["test_value"],
    "nested_return": [[{"A_a": "1", "B_b": "2"}, {"A_a": "10", "B_b": "20"}]],
    "component_with_env_variable": ["env_var_value"],
    "pipeline_with_collected_artifacts": ["0,1,2"],
    "local_execution_pipeline_with_retry": ["attempt=2"],
    "local_execution_pipeline_with_oneof": ["selected:A"],
    "local_execution_pipeline_with_k8s_only_methods": ["hello"],
}
"""Outputs that upstream's own tests state."""

PROJECT = {
    "ondol.yaml": "name: upstream\nimages:\n"
    + "".join(f"  '{image}': python\n" for image in ("*python*", "alpine*", "bash*", "*/busybox*", "busybox*")),
    "secrets/test-secret-1/username": "user1",
    "secrets/test-secret-2/password": "psw1",
    "secrets/test-secret-3/password": "psw2",
    "secrets/user-gcp-sa/service-account.json": "{}",
    "table.txt": "text",
}
"""The project each file runs in: what images mean, and upstream's own test secrets."""

TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}
WORLD = re.compile(
    r"gs://|s3://|minio|https?://|No matching distribution|cannot be installed|Name or service not known|getaddrinfo"
    r"|NameResolution|Max retries exceeded|Connection refused|ConnectionError|Hugging Face Hub|auth credentials"
    r"|exit code 127"
)
MEANT_TO_FAIL = re.compile(
    r"/failing/|/fail_v2|/DSL - Control structures\.py|core/retry/retry\.py|core/exit_handler/|ignore_upstream_failure"
    r"|/pipeline_as_exit_task|/pipeline_with_task_final_status\."
)
"""Files with a step that exits with an error, always or by chance; its name says so."""

OTHERWISE: dict[str, tuple[str, str]] = {
    "pipeline_with_input_status_state": (
        "disputed",
        "asserts the state COMPLETE of KFP's metadata store; kfp documents SUCCEEDED",
    ),
    "create_pod_metadata_complex": (
        "disputed",
        "a step reads variables that it never asks for; upstream only compiles it",
    ),
    "conditional_producer_and_consumers": ("disputed", "declares a list as output and connects an integer to it"),
    "pipeline_with_component_from_text": ("needs the world", "its shell line needs Alpine's own sh"),
    "upload_download_compiled": ("needs the world", "it reads its own artifact back from a Minio with credentials"),
}
"""Files that cannot end well here or contradict kfp's documentation or themselves: what they are instead of wrong."""

SLEEPY = re.compile(r"sleep 300|t_end = time\.time\(\) \+ 60")

CLUSTER = re.compile(r"cluster|Vertex|accelerator|image registry|store inside|as somebody else|of the pod|pod's field")
IMAGE = re.compile(r"containerized component|UNS-340")


@dataclass
class Result:
    """What became of one file."""

    file: str
    outcome: str
    reason: str = ""
    seconds: float = 0.0


def pipelines_below(folder: Path) -> list[Path]:
    """Return the files that hold a pipeline: compiled ones, and Python that declares one."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or "/invalid/" in str(path) or "compiled-workflows" in str(path):
            continue
        if path.suffix in (".yaml", ".yml", ".json"):
            text = path.read_text(encoding="utf-8", errors="replace")
            if "pipelineInfo" in text and "deploymentSpec" in text:
                found.append(path)
        elif path.suffix == ".py" and not path.name.endswith("_test.py"):
            text = path.read_text(encoding="utf-8", errors="replace")
            if re.search(r"^@(kfp\.)?(dsl\.)?(pipeline|component|container_component)\b(?!\.)", text, re.MULTILINE):
                found.append(path)
    return found


def ondol(home: Path, *arguments: str, seconds: float, cwd: Path) -> tuple[int, str, str]:
    """Run the command line in a home of its own; return exit code and what it said."""
    environ = {**os.environ, "ONDOL_HOME": str(home)}
    child = subprocess.Popen(
        [sys.executable, "-m", "ondol.cli.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        cwd=cwd,
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGTERM)
        child.communicate()
        return -1, "", f"still running after {seconds:g} s"
    return child.returncode, out, err


def arguments_of(compiled: Compiled, stem: str, project: Path) -> list[str]:
    """Return `-p` options: what upstream states, and type-right values for inputs without a default."""
    stated, options = STATED.get(stem, {}), []
    for name, parameter in compiled.pipeline.root.parameters.items():
        if name in stated or not (parameter.optional or parameter.has_default):
            value = stated.get(name, MADE.get(parameter.type, "text"))
            options += ["-p", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    for name, slot in compiled.pipeline.root.artifacts.items():
        options += [] if slot.optional else ["-p", f"{name}={project / 'table.txt'}"]
    return options


def refused(answer: str) -> tuple[str, str]:
    """Return code and message of Ondol's JSON error."""
    try:
        error = json.loads(answer[answer.index("{") :])
        return error["code"], f"{error['error']} [{error['where']}]"
    except (ValueError, KeyError):
        return "", answer.strip()[-400:]


def refusal(number: str, message: str) -> tuple[str, str]:
    """Say what it means that a file was refused."""
    if WORLD.search(message) and not number.startswith("UNS"):
        return "needs the world", f"{number} {message}"
    return "does not compile" if number == "INP-012" else "refused", f"{number} {message}"


def judge(path: Path, code: int, out: str, err: str, compiled: Compiled) -> tuple[str, str]:
    """Say what an ended run means."""
    if code == 0 and path.stem not in OTHERWISE:
        made = json.loads(out)["outputs"]
        for name, slot in compiled.pipeline.root.output_parameters.items():
            if name in made and not isinstance(made[name], TYPES.get(slot.type, (object,))):
                return "wrong", f"output {name!r} is {made[name]!r}, declared {slot.type}"
        wanted = EXPECTED.get(path.stem.removesuffix("_compiled"))
        if wanted is not None and made.get("Output") not in wanted:
            return "wrong", f"output is {made.get('Output')!r}, upstream's test states {wanted!r}"
        return "runs", ""
    if code == 0:
        return OTHERWISE[path.stem]
    number, message = refused(out or err)
    if number.startswith(("UNS", "INP", "USE", "DEP")):
        return refusal(number, message)
    if code == -1:
        return ("too long" if SLEEPY.search(path.read_text(encoding="utf-8")) else "wrong"), err
    if number.startswith("RUN") and MEANT_TO_FAIL.search(str(path)) and re.search("step '[^']*fail", message):
        return "runs", f"fails as it is meant to: {message}"
    if path.stem in OTHERWISE:
        return OTHERWISE[path.stem]
    return ("needs the world" if WORLD.search(message) else "wrong"), f"{number} {message}"


def one(path: Path, folder: Path, seconds: float) -> Result:
    """Run one file to its verdict."""
    name, start = str(path.relative_to(folder)), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ondol-kfp-") as place:
        project, home = Path(place), Path(place) / "home"
        for file, text in PROJECT.items():
            (project / file).parent.mkdir(parents=True, exist_ok=True)
            (project / file).write_text(text, encoding="utf-8")
        try:
            with Store(Settings(home=home, project=project).database) as store:
                compiled = compiling.load(path, store)
            options = arguments_of(compiled, path.stem, project)
            code, out, err = ondol(home, "run", str(path), "--json", *options, seconds=seconds, cwd=project)
            outcome, reason = judge(path, code, out, err, compiled)
        except errors.OndolError as error:
            outcome, reason = refusal(error.code, f"{error.message} [{error.where}]")
    return Result(name, outcome, reason, round(time.monotonic() - start, 1))


def summary(results: list[Result]) -> dict[str, Any]:
    """Count outcomes; those that need an image, a cluster or the world are counted apart."""
    counts = collections.Counter(result.outcome for result in results)
    image = sum(result.outcome == "refused" and bool(IMAGE.search(result.reason)) for result in results)
    cluster = sum(result.outcome == "refused" and bool(CLUSTER.search(result.reason)) for result in results)
    elsewhere = sum(counts[name] for name in ("needs the world", "does not compile", "too long"))
    possible = len(results) - image - cluster - elsewhere
    return {
        "files": len(results),
        **counts,
        "refused_for_image": image,
        "refused_for_cluster": cluster,
        "share_of_possible": round(counts["runs"] / max(possible, 1), 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Run Kubeflow Pipelines' own files here.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="only files whose path contains this text")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=120.0, help="time limit of one file")
    parser.add_argument("--json", type=Path, help="write all results here")
    options = parser.parse_args()
    folder = options.folder.resolve()
    # Some of the files import each other from the root of the repository.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    files = [path for path in pipelines_below(folder) if options.only in str(path)]
    results: list[Result] = []
    with ThreadPoolExecutor(options.parallel) as pool:
        for result in pool.map(lambda path: one(path, folder, options.seconds), files):
            results.append(result)
            print(f"{result.outcome:16} {result.seconds:6.1f} s  {result.file}  {result.reason[:220]}", flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1), encoding="utf-8")
    print(json.dumps(summary(results)))
    return 1 if any(result.outcome == "wrong" for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
