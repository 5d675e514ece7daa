# ruff: noqa: PTH109
# mypy: ignore-errors
"""Steps that change the process they run in, and steps that look at it."""

from kfp import dsl

component = dsl.component(base_image="python:3.11")


@component
def look(turn: int = 0) -> dict:
    import os
    import random
    import signal
    import sys
    import threading

    print("looked")
    os.write(2, b"looked below Python\n")
    mask = os.umask(0)
    os.umask(mask)
    return {
        "process": os.getpid(),
        "cwd": os.getcwd(),
        "environ": {name: os.environ[name] for name in sorted(os.environ) if name != "MLFLOW_RUN_CONTEXT"},
        "path": sys.path,
        "arguments": sys.argv,
        "terminate": str(signal.getsignal(signal.SIGTERM)),
        "mask": mask,
        "drawn": random.random(),
        "threads": threading.active_count(),
        "kept": getattr(sys.modules["json"], "kept_by_a_step", None),
    }


@component
def meddle(after: dict) -> int:
    import io
    import json
    import os
    import random
    import signal
    import sys
    import threading
    import time

    threading.Thread(target=lambda: (time.sleep(0.2), print("a thread that outlived its step"))).start()
    json.kept_by_a_step = "kept"
    os.environ["MEDDLED"] = "yes"
    del os.environ["PATH"]
    os.chdir("/")
    os.umask(0)
    sys.path.insert(0, "/nowhere")
    sys.argv = ["meddled"]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    random.seed(1)
    print("before the output went elsewhere")
    sys.stdout = sys.stderr = io.StringIO()
    return os.getpid()


@dsl.pipeline(name="meddled")
def meddled():
    first = look()
    changed = meddle(after=first.output)
    second = look(turn=changed.output)
    changed_again = meddle(after=second.output)
    look(turn=changed_again.output)


@component
def leave(how: str) -> int:
    import os
    import signal

    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


@dsl.pipeline(name="leaving")
def leaving(how: str):
    first = leave(how="stay")
    leave(how=how).after(first)
    wait = leave(how="stay").after(first)
    leave(how="stay").after(wait)


@component
def register(path: str):
    import atexit
    import pathlib

    atexit.register(pathlib.Path(path).write_text, "the end")


@dsl.pipeline(name="registering")
def registering(path: str):
    register(path=path)


@component
def pool(turn: int = 0) -> str:
    """Use pools that live as long as Python, and leave work to one of them."""
    import json
    import multiprocessing
    import time
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

    if not hasattr(json, "threads"):
        json.threads = ThreadPoolExecutor(2)
        json.processes = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    made = json.processes.submit(abs, -7 - turn).result()  # first: nothing is forked while the other pool writes
    for number in range(3):
        json.threads.submit(lambda number=number: (time.sleep(0.1), print(f"left {turn} {number}\n", end="")))
    return str(made)


@dsl.pipeline(name="pooling")
def pooling():
    first = pool()
    second = pool(turn=1).after(first)
    pool(turn=2).after(second)


@component
def own(number: int = 0) -> int:
    import os

    return os.getpid()


@dsl.pipeline(name="limited")
def limited():
    first = own()
    own(number=first.output).set_memory_limit("2G")
    own(number=first.output).set_env_variable("A", "b")
