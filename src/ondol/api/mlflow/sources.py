"""`create_model_version(source="runs:/ID/model")`, made to register a version that can be loaded.

Since MLflow 3 a logged model lives under its experiment and not under its run. `mlflow.register_model` knows that and
asks for `models:/m-…`; the client call of every older script does not, and MLflow then registers a version whose files
are nowhere. Here the source is rewritten as `register_model` would have done.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
from starlette.types import Receive, Scope

from ondol.api.mlflow import body

_PATHS = frozenset(f"/{root}/2.0/mlflow/model-versions/create" for root in ("api", "ajax-api"))
_RUNS = re.compile(r"runs:/([^/]+)/(.+?)/*")


def wants(path: str) -> bool:
    """Say whether a path may need the translation."""
    return path in _PATHS


async def translated(scope: Scope, receive: Receive) -> Receive:
    """Return a `receive` whose body names the logged model where it named the run; everything else is as it was."""
    read = await body.read(receive)
    request = read.json() if len(read.data) <= body.MAX_BYTES else None
    if request is None or request.get("model_id") or not isinstance(request.get("source"), str):
        return read
    matched = _RUNS.fullmatch(request["source"])
    if matched is None:
        return read
    model = await asyncio.to_thread(find_logged_model, matched[1], matched[2])
    if model is None:
        return read
    changed = msgspec.json.encode({**request, "source": f"models:/{model}", "model_id": model, "run_id": matched[1]})
    body.with_length(scope, len(changed))
    return body.Buffered(changed, receive)


def find_logged_model(run: str, name: str) -> str | None:
    """Return the id of the model a run logged under a name (the one of the largest step, then the newest), or None.

    None also when the run does not exist, or keeps the model under its own artifacts as MLflow 2 did: the source is
    good as it is then.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.server.handlers import _get_tracking_store

    store: Any = _get_tracking_store()
    try:
        found = store.get_run(run)
        models = store.search_logged_models(
            experiment_ids=[found.info.experiment_id],
            filter_string=f"name = '{_quoted(name)}' AND source_run_id = '{_quoted(run)}'",
        )
    except MlflowException:
        return None
    steps = {one.model_id: one.step for one in found.outputs.model_outputs} if found.outputs else {}
    ready = [model for model in models if str(model.status) == "READY"]
    best = max(ready, key=lambda model: (steps.get(model.model_id, -1), model.creation_timestamp), default=None)
    return str(best.model_id) if best else None


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
