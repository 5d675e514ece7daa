"""What the MLflow runs that a step makes are told about the pipeline run that they belong to.

MLflow itself gives every run that `mlflow.start_run` or autologging begins the tags in the variable
`MLFLOW_RUN_CONTEXT`, a JSON object: so nothing has to be installed beside MLflow, and any step's environment will do.
Must not know MLflow beyond this variable; the registry looks the tags up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from ondol.records.pipeline import PIPELINE_RUN_TAG, PIPELINE_TAG, STEP_TAG, PipelineRun, TaskRun

VARIABLE = "MLFLOW_RUN_CONTEXT"


def variables(run: PipelineRun, task: TaskRun, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to add to a step's own.

    :param environ: the step's own; tags that these, or the surrounding shell, already give every run are kept, and
        win. What is there and no JSON object is left alone: MLflow itself will say what is wrong with it.
    """
    tags = {
        PIPELINE_TAG: run.name,
        PIPELINE_RUN_TAG: run.id,
        STEP_TAG: task.name,
        "ondol.attempt": str(task.attempt),
        "mlflow.source.name": run.source,
        "mlflow.source.type": "JOB",
    }
    try:
        given = json.loads(environ.get(VARIABLE) or os.environ.get(VARIABLE) or "{}")
    except ValueError:
        return {}
    return {VARIABLE: json.dumps({**tags, **given})} if isinstance(given, dict) else {}
