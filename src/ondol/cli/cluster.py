"""`ondol cluster`: the same files for a real cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ondol.cli import output


@click.group("cluster", epilog="\b\nExamples:\n  ondol cluster render serving.yaml new.yaml --as standard --as argo")
def group() -> None:
    """Files for a real cluster with KServe."""


@group.command(
    "render",
    epilog="\b\nExamples:\n  ondol cluster render serving.yaml new.yaml --as knative\n"
    "  ondol cluster render serving.yaml new.yaml --as standard --as argo --rollout rollout-01m8 \\\n"
    "    --judge http://ondol.mlops:5000 > trial.yaml\n  ondol cluster render serving.yaml new.yaml --json",
)
@click.argument("serving", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("tried", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--as", "forms", multiple=True, type=click.Choice(["standard", "knative", "argo", "flagger"]),
    help="What to write (standard).",
)  # fmt: skip
@click.option("--judge", default="http://ondol:5000", help="The control process as the cluster sees it.")
@click.option("--rollout", default="ROLLOUT", help="Id of the rollout that judges: `ondol rollout start` prints it.")
@output.json_option
def render(serving: Path, tried: Path, forms: tuple[str, ...], judge: str, rollout: str, as_json: bool) -> None:
    """Write the trial of an InferenceService's new model for a cluster.

    SERVING is the file that serves, TRIED the same file with the new model. KServe honours `spec.canary[]` (standard)
    in Standard mode and `canaryTrafficPercent` (knative) in Knative mode only. Neither judges: argo and flagger do.
    Flagger scales the Deployment it watches to zero and KServe puts its own back: use flagger only for a Deployment
    that no InferenceService manages.
    """
    from ondol.backends.kubernetes import rendering

    if {"standard", "knative"} <= set(forms):
        raise click.UsageError("--as standard and --as knative write the same object: choose the cluster's mode")
    trial = rendering.Trial(_manifest(serving), _manifest(tried), _policy(tried), judge, rollout)
    found: list[Any] = [one for form in forms or ("standard",) for one in rendering.FORMS[form](trial)]
    output.emit(found, as_json, lambda: _print(found))


def _print(found: list[Any]) -> None:
    import yaml

    print(yaml.safe_dump_all(found, sort_keys=False, allow_unicode=True), end="")


def _manifest(path: Path) -> dict[str, Any]:
    """Return the one InferenceService of a file, valid for KServe."""
    from ondol.base import errors
    from ondol.formats import inference_service
    from ondol.formats.kserve import kinds
    from ondol.formats.resource.documents import documents

    every = documents(path.read_text(encoding="utf-8"), str(path))
    found = [one for one in every if one.get("kind") == "InferenceService"]
    if len(found) != 1:
        raise errors.InputError(
            f"{len(found)} InferenceServices in {str(path)!r}, one is wanted", where=str(path), code="INP-426"
        )
    wrong = [one for one in inference_service.read(found[0])[1] if not one.unsupported]
    if wrong:
        raise kinds.refusal(found[0], wrong, str(path))
    return found[0]


def _policy(tried: Path) -> Any:
    """Return how the project tries candidates of the service; outside a project, the defaults."""
    from ondol.cli import rollout

    return rollout.project_policy(str(_manifest(tried)["metadata"]["name"]))
