"""Every kind of KServe's that can be named here, found by apiVersion and kind; one manifest checked along it.

A kind that is refused whole is declared all the same, so that its refusal has a reason. Must not know how anything is
served.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ondol.base import errors
from ondol.formats.kserve import common, model
from ondol.formats.kserve.graph import INFERENCE_GRAPH
from ondol.formats.kserve.llm import LLM_INFERENCE_SERVICE, LLM_INFERENCE_SERVICE_V1
from ondol.formats.kserve.runtime import CLUSTER_SERVING_RUNTIME, SERVING_RUNTIME
from ondol.formats.kserve.service import INFERENCE_SERVICE
from ondol.formats.kserve.trained_model import TRAINED_MODEL
from ondol.formats.resource import checking, openapi
from ondol.formats.resource import table as resource_table
from ondol.formats.resource.checking import Findings, Problem
from ondol.formats.resource.kind import Kind
from ondol.formats.resource.states import HONOURED
from ondol.formats.resource.types import Field, Free, Object, Text

Json = dict[str, Any]

KINDS: tuple[Kind, ...] = (
    INFERENCE_SERVICE,
    INFERENCE_GRAPH,
    SERVING_RUNTIME,
    CLUSTER_SERVING_RUNTIME,
    LLM_INFERENCE_SERVICE,
    LLM_INFERENCE_SERVICE_V1,
    TRAINED_MODEL,
)
_BY_NAME = {(one.api_version, one.kind): one for one in KINDS}


def find(manifest: Json) -> Kind | None:
    """Return the declaration of a manifest's kind; another version of a known kind counts as unknown."""
    return _BY_NAME.get((str(manifest.get("apiVersion")), str(manifest.get("kind"))))


def whole(kind: Kind) -> Object:
    """Return the declaration of a whole manifest of a kind."""
    return Object(
        {
            "apiVersion": Field(Text({kind.api_version: HONOURED}), required=True),
            "kind": Field(Text({kind.kind: HONOURED}), required=True),
            "metadata": Field(common.metadata(kind.annotations), required=True),
            "spec": Field(kind.spec, required=True),
            "status": Field(Free()),
        },
        rules=kind.rules,
    )


def check(manifest: Json, own_runtime: Collection[str] = ()) -> Findings:
    """Return everything that is to be said of a manifest: problems, and notes on what has no effect.

    :param own_runtime: paths of predictors whose models a runtime of the user's serves (`spec.predictor`): what only
        Ondol's own server does not take is no problem there.
    """
    kind = find(manifest)
    if kind is None:
        return Findings([_unknown(manifest)])
    found = checking.check(manifest, whole(kind))
    if not kind.state.taken:
        found.problems.insert(0, Problem("kind", f"{kind.kind}: {kind.state.reason}", "refused", kind.state))
    if kind in (SERVING_RUNTIME, CLUSTER_SERVING_RUNTIME) and manifest["metadata"].get("name") in model.BUILT_IN:
        found.notes.append("metadata.name: an engine of Ondol's answers under this name")
    for path in own_runtime:
        found.problems = [one for one in found.problems if not _waived(path, one)]
        found.notes = [one for one in found.notes if not _in_server(path, one.partition(": ")[0])]
    return found


def _in_server(predictor: str, path: str) -> bool:
    return path.startswith(f"{predictor}.") and model.own_server_takes(path.removeprefix(f"{predictor}."))


def _waived(predictor: str, problem: Problem) -> bool:
    """Whether a problem is none of a model that a runtime of the user's serves: it may have no files, too."""
    lacks_files = problem.path.startswith(f"{predictor}.") and problem.reason == model.NO_FILES
    return lacks_files or (problem.unsupported and _in_server(predictor, problem.path))


def _unknown(manifest: Json) -> Problem:
    name, version = manifest.get("kind"), manifest.get("apiVersion")
    known = [one.api_version for one in KINDS if one.kind == name]
    if known:
        return Problem("apiVersion", f"must be {' or '.join(map(repr, known))}, not {checking.show(version)}")
    return Problem("kind", f"kind {name!r} is not served by the local backend", "refused")


def schema(kind: Kind) -> Json:
    """Return the OpenAPI v3 schema of a kind's resources, built-in types written out."""
    return openapi.schema(whole(kind))


def table(kind: Kind) -> str:
    """Return what this backend does with a kind's fields, as Markdown; of a kind that is refused, why."""
    if kind.state.taken:
        metadata = resource_table.choices(kind.annotations, "metadata.annotations")
        return resource_table.markdown(resource_table.rows(kind.spec) + metadata)
    return resource_table.markdown([resource_table.whole(kind.kind, kind.state)])


def notes(manifest: Json) -> list[str]:
    """Return what a valid manifest asks for that is kept and shown, but that nothing on this machine acts on."""
    return check(manifest).notes


def refusal(manifest: Json, problems: list[Problem], source: str = "") -> errors.InputError:
    """Return the one error that lists every problem of a manifest.

    It is an `UnsupportedError` when all that is wrong are fields this backend does not honour.
    """
    metadata, kind = manifest.get("metadata"), manifest.get("kind")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    listed = "".join(f"\n    {problem}" for problem in problems)
    count = f"{len(problems)} field{'s' if len(problems) > 1 else ''}"
    if [problem.path for problem in problems] == ["kind"] and problems[0].unsupported:
        return errors.UnsupportedError(
            problems[0].reason, where=source, way_out=problems[0].state.way_out, code="UNS-012"
        )
    if all(problem.unsupported for problem in problems):
        return errors.UnsupportedError(
            f"{kind} {name!r}: {count} not honoured by the local backend:{listed}",
            where=source,
            way_out="Remove them, or apply the file to a cluster with KServe.",
            code="UNS-010",
        )
    return errors.InputError(
        f"{kind} {name!r} is not valid: {count}:{listed}",
        where=source,
        way_out=f"`kubectl explain {str(kind).lower()}.spec` describes the fields.",
        code="INP-011",
    )
