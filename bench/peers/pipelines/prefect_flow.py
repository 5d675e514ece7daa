# mypy: ignore-errors
"""Prefect: a chain of ten tasks and ten mapped ones. State in Prefect's own SQLite; results in memory."""

import json
import sys
import time

begin = time.perf_counter()
from prefect import flow, task  # noqa: E402 - the import is part of a cold start


@task
def step(number: int) -> int:
    return number + 1


@task
def total(numbers: list) -> int:
    return sum(numbers)


@flow
def chain(number: int) -> int:
    for _ in range(10):
        number = step(number)
    return number


@flow
def wide(number: int) -> int:
    return total([future.result() for future in step.map(list(range(number, number + 10)))])


def measured(work, number):
    start = time.perf_counter()
    work(number)
    return time.perf_counter() - start


chain(0)
cold = time.perf_counter() - begin
rounds = int(sys.argv[1])
print(
    json.dumps(
        {
            "cold": cold,
            "chain": min(measured(chain, n) for n in range(rounds)),
            "wide": min(measured(wide, n) for n in range(rounds)),
        }
    )
)
