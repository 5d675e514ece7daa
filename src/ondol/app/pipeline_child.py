"""The process that runs one pipeline for control: `python -m ondol.app.pipeline_child RUN`.

Started by the controller of pipeline runs, perhaps twice: whoever comes second finds the run ended, or goes on with it.
"""

from __future__ import annotations

import fcntl
import sys
from dataclasses import replace

from ondol.app import running
from ondol.backends.local import model_source
from ondol.base import errors
from ondol.base import settings as settings_module
from ondol.base.settings import Settings
from ondol.pipelines import requests, runner, schedules
from ondol.records.kfp import RunRequest
from ondol.store import kfp, runs
from ondol.store.connection import Store


def main(run: str) -> int:
    """Run a request to its end; return the process' exit code."""
    settings = settings_module.load()
    folder = settings.home / "runs" / run
    folder.mkdir(parents=True, exist_ok=True)
    with Store(settings.database) as store, (folder / "child.lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)  # a twin may be at it: wait and see what is left to do
        request = kfp.find(store, RunRequest, run)
        record = runs.find(store, run)
        if request is None or request.wish != "run" or (record is not None and record.state != "running"):
            return 0
        try:
            _run(store, settings, request, resume=record is not None)
        except KeyboardInterrupt:
            return 130
        except errors.OndolError as error:
            if runs.find(store, run) is None:  # it never began: nobody else can say why
                why, code = error.message, error.code
                kfp.change(store, RunRequest, run, lambda one: replace(one, error=why, error_code=code))
            return error.exit_code
    return 0


def _run(store: Store, settings: Settings, request: RunRequest, *, resume: bool) -> None:
    kept = settings.home / "runs" / request.id / "submitted.yaml"
    if not resume:
        kept.write_text(requests.compiled_of(schedules.spec_of(store, request)).text, encoding="utf-8")
    runner.run(
        kept,
        request.parameters,
        store=store,
        settings=settings,
        resume=request.id if resume else None,
        run_id=request.id,
        environ=running.tracking(settings),
        origin="api",
        registry=model_source.for_importers(settings),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
