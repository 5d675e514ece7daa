# mypy: ignore-errors
"""ZenML: a chain of ten steps and ten side by side, local orchestrator. Runs in SQLite, outputs in files."""

import json
import sys
import time

begin = time.perf_counter()
from zenml import pipeline, step  # noqa: E402


@step(enable_cache=False)
def add(number: int) -> int:
    return number + 1


@pipeline(enable_cache=False)
def chain(number: int = 0):
    for _ in range(10):
        number = add(number)


@pipeline(enable_cache=False)
def wide(number: int = 0):
    for item in range(10):
        add(number + item)


def measured(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


measured(chain)
cold = time.perf_counter() - begin
rounds = int(sys.argv[1])
print(
    json.dumps(
        {
            "cold": cold,
            "chain": min(measured(chain) for _ in range(rounds)),
            "wide": min(measured(wide) for _ in range(rounds)),
        }
    )
)
