# mypy: ignore-errors
"""Dagster: a chain of ten ops and ten mapped ones, in one process. Events in SQLite, outputs pickled to files."""

import json
import sys
import time

begin = time.perf_counter()
from dagster import DagsterInstance, DynamicOut, DynamicOutput, fs_io_manager, job, op  # noqa: E402


@op
def first() -> int:
    return 0


@op
def step(number: int) -> int:
    return number + 1


@op(out=DynamicOut(int))
def items():
    for number in range(10):
        yield DynamicOutput(number, mapping_key=str(number))


@op
def total(numbers: list) -> int:
    return sum(numbers)


@job(resource_defs={"io_manager": fs_io_manager})
def chain():
    number = first()
    for _ in range(9):
        number = step(number)


@job(resource_defs={"io_manager": fs_io_manager})
def wide():
    total(items().map(step).collect())


def measured(work):
    start = time.perf_counter()
    assert work.execute_in_process(instance=DagsterInstance.get()).success
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
