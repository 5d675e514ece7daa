"""Pipeline runs: written at every change of state, before anybody is told.

Bodies are JSON as Python writes it (NaN and infinity allowed: metrics may be either).
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from ondol.base import errors
from ondol.records import codec
from ondol.records.pipeline import PipelineRun, TaskRun
from ondol.store.connection import Row, Store, Tx


def _dump(record: Any) -> str:
    return json.dumps(codec.plain(record), ensure_ascii=False)


def put(store: Store, run: PipelineRun) -> None:
    """Write a run's own facts (not its tasks). One that goes on after it had ended will be mirrored again."""
    with store.write() as tx:
        put_in(tx, run)


def put_in(tx: Tx, run: PipelineRun) -> None:
    """Write a run's own facts within a transaction."""
    tx.execute(
        "INSERT INTO runs (id, name, state, started_at, mlflow_run, body) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET state = excluded.state, body = excluded.body, "
        "mlflow_run = CASE excluded.state WHEN 'running' THEN '' ELSE runs.mlflow_run END",
        (run.id, run.name, run.state, run.started_at, run.mlflow_run, _dump(replace(run, tasks=()))),
    )


def put_task(store: Store, run: str, task: TaskRun) -> None:
    """Write the state of one task."""
    with store.write() as tx:
        _put_task(tx, run, task)


def _put_task(tx: Tx, run: str, task: TaskRun) -> None:
    tx.execute(
        "INSERT INTO run_tasks (run, name, seq, state, body) "
        "SELECT ?, ?, COUNT(*), ?, ? FROM run_tasks WHERE run = ? "
        "ON CONFLICT (run, name) DO UPDATE SET state = excluded.state, body = excluded.body",
        (run, task.name, task.state, _dump(task), run),
    )


def finish_task(store: Store, run: str, task: TaskRun, step: str, ingredients: dict[str, Any]) -> None:
    """Write a task that succeeded, and remember its outcome for later runs, in one transaction."""
    with store.write() as tx:
        _put_task(tx, run, task)
        tx.execute(
            "INSERT INTO step_cache (cache_key, step, run, at, ingredients, body) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (cache_key) DO UPDATE SET run = excluded.run, at = excluded.at, body = excluded.body",
            (task.key, step, run, time.time(), json.dumps(ingredients), _dump(task)),
        )


def cached(store: Store, key: str) -> tuple[str, TaskRun] | None:
    """Return the run and the task that had this cache key, or None."""
    with store.read() as tx:
        row = tx.row("SELECT run, body FROM step_cache WHERE cache_key = ?", (key,))
    return (row["run"], _task(row)) if row else None


def forget_cached(store: Store, key: str) -> None:
    """Drop a cached outcome whose content is gone."""
    with store.write() as tx:
        tx.execute("DELETE FROM step_cache WHERE cache_key = ?", (key,))


def last_ingredients(store: Store, step: str) -> dict[str, Any] | None:
    """Return what the newest remembered outcome of a step depended on, to say what changed."""
    with store.read() as tx:
        row = tx.row("SELECT ingredients FROM step_cache WHERE step = ? ORDER BY at DESC LIMIT 1", (step,))
    return dict(json.loads(row["ingredients"])) if row else None


def set_mlflow_run(store: Store, run: PipelineRun, mlflow_run: str) -> None:
    """Remember which MLflow run mirrors a run and which ones its tasks made, unless it has gone on meanwhile."""
    with store.write() as tx:
        row = tx.row("SELECT body FROM runs WHERE id = ? AND state = ?", (run.id, run.state))
        if row is None or json.loads(row["body"])["ended_at"] != run.ended_at:
            return
        tx.execute("UPDATE runs SET mlflow_run = ? WHERE id = ?", (mlflow_run, run.id))
        for task in run.tasks:
            if task.mlflow_runs:
                _put_task(tx, run.id, task)


def _task(row: Row) -> TaskRun:
    return codec.typed(json.loads(row["body"]), TaskRun)


def _run(row: Row, tasks: list[Row]) -> PipelineRun:
    run = codec.typed(json.loads(row["body"]), PipelineRun)
    return replace(run, mlflow_run=row["mlflow_run"], tasks=tuple(_task(task) for task in tasks))


def get(store: Store, run: str) -> PipelineRun:
    """Return a run with its tasks; an unambiguous beginning or ending of its id is enough, and so is `latest`.

    :raises NotFoundError: when there is none, or more than one.
    """
    with store.read() as tx:
        rows = tx.rows("SELECT * FROM runs WHERE id = ?", (run,))
        if not rows and run == "latest":
            rows = tx.rows("SELECT * FROM runs ORDER BY id DESC LIMIT 1")
        elif not rows and len(run) >= 4:
            rows = tx.rows("SELECT * FROM runs WHERE id LIKE ? OR id LIKE ? LIMIT 2", (run + "%", "%" + run))
        tasks = tx.rows("SELECT * FROM run_tasks WHERE run = ? ORDER BY seq", (rows[0]["id"],)) if rows else []
    if len(rows) != 1:
        found = "no run" if not rows else "more than one run"
        raise errors.NotFoundError(f"{found} {run!r}", way_out="`ondol pipeline list` shows them.", code="NOF-010")
    return _run(rows[0], tasks)


def every(store: Store, name: str = "", limit: int = 100) -> list[PipelineRun]:
    """Return runs with their tasks, newest first; of one pipeline, or of all."""
    where, parameters = ("WHERE name = ?", (name,)) if name else ("", ())
    with store.read() as tx:
        rows = tx.rows(f"SELECT * FROM runs {where} ORDER BY id DESC LIMIT {int(limit)}", parameters)
        tasks = {row["id"]: tx.rows("SELECT * FROM run_tasks WHERE run = ? ORDER BY seq", (row["id"],)) for row in rows}
    return [_run(row, tasks[row["id"]]) for row in rows]


def not_mirrored(store: Store) -> list[PipelineRun]:
    """Return ended runs that no MLflow run mirrors yet, oldest first."""
    with store.read() as tx:
        rows = tx.rows("SELECT id FROM runs WHERE mlflow_run = '' AND state <> 'running' ORDER BY id")
    return [get(store, row["id"]) for row in rows]


def put_compiled(store: Store, key: str, body: dict[str, Any]) -> None:
    """Remember what a pipeline file compiled to."""
    with store.write() as tx:
        tx.execute(
            "INSERT INTO compiled_pipelines (cache_key, at, body) VALUES (?, ?, ?) "
            "ON CONFLICT (cache_key) DO UPDATE SET at = excluded.at, body = excluded.body",
            (key, time.time(), json.dumps(body)),
        )


def compiled(store: Store, key: str) -> dict[str, Any] | None:
    """Return what `put_compiled` remembered, or None."""
    with store.read() as tx:
        row = tx.row("SELECT body FROM compiled_pipelines WHERE cache_key = ?", (key,))
    return dict(json.loads(row["body"])) if row else None


def find(store: Store, run: str) -> PipelineRun | None:
    """Return a run with its tasks by its whole id, or None."""
    with store.read() as tx:
        row = tx.row("SELECT * FROM runs WHERE id = ?", (run,))
        tasks = tx.rows("SELECT * FROM run_tasks WHERE run = ? ORDER BY seq", (run,)) if row else []
    return _run(row, tasks) if row else None


def headers(store: Store, state: str = "") -> list[PipelineRun]:
    """Return all runs without their tasks, newest first; only those in a state when it is given."""
    where, parameters = ("WHERE state = ?", (state,)) if state else ("", ())
    with store.read() as tx:
        rows = tx.rows(f"SELECT * FROM runs {where} ORDER BY id DESC", parameters)
    return [_run(row, []) for row in rows]


def remove(store: Store, run: str) -> None:
    """Forget a run and its tasks; what its steps made stays in the cache."""
    with store.write() as tx:
        tx.execute("DELETE FROM run_tasks WHERE run = ?", (run,))
        tx.execute("DELETE FROM runs WHERE id = ?", (run,))
