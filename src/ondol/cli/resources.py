"""`ondol apply|get|describe|delete`: kubectl's habits on the resources kept in this home."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from ondol.base import errors
from ondol.cli import context, output
from ondol.formats import inference_service
from ondol.formats.kserve import kinds
from ondol.formats.resource import documents as parsing
from ondol.store import resources
from ondol.store.connection import Store
from ondol.store.resources import Resource

Json = dict[str, Any]

_GROUP = "serving.kserve.io"
_PLURAL = "inferenceservice"
_NAMES = ("isvc", _PLURAL, f"{_PLURAL}s", f"{_PLURAL}s.{_GROUP}", f"{_PLURAL}.{_GROUP}")
_KINDS = dict.fromkeys(_NAMES, inference_service.KIND)


def _kind(text: str) -> str:
    kind = _KINDS.get(text.lower())
    if kind is None:
        raise errors.UsageError(
            f"no resource type {text!r} here", way_out="Use isvc (inferenceservices).", code="USE-030"
        )
    return kind


def _split(kind: str, name: str) -> tuple[str, str]:
    """Return kind and name, also out of `kind/name`."""
    if "/" in kind and not name:
        kind, _, name = kind.partition("/")
    return _kind(kind), name


def _read(files: tuple[str, ...]) -> list[tuple[Json, str]]:
    """Return every manifest in the files with the file's name; `-` is standard input, a folder all its YAML files."""
    found: list[tuple[Json, str]] = []
    for given in files:
        if given == "-":
            found += [(manifest, "-") for manifest in parsing.documents(sys.stdin.read(), "-")]
            continue
        path = Path(given)
        paths = (
            sorted(one for one in path.iterdir() if one.suffix in (".yaml", ".yml", ".json"))
            if path.is_dir()
            else [path]
        )
        for one in paths:
            try:
                text = one.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise errors.InputError(f"cannot read {str(one)!r}: {error}", code="INP-012") from error
            found += [(manifest, str(one)) for manifest in parsing.documents(text, str(one))]
    if not found:
        raise errors.InputError("no resources in the given files", where=", ".join(files), code="INP-012")
    return found


def _check(manifests: list[tuple[Json, str]], namespace: str) -> None:
    """Check all manifests before the first is applied.

    :raises InputError: listing every problem of every manifest.
    """
    refused: list[errors.InputError] = []
    for manifest, source in manifests:
        if manifest.get("kind") != inference_service.KIND:
            refused.append(
                errors.UnsupportedError(
                    f"kind {manifest.get('kind')!r} is not served by the local backend", where=source, code="UNS-012"
                )
            )
            continue
        if namespace and isinstance(manifest.get("metadata"), dict):
            manifest["metadata"].setdefault("namespace", namespace)
        service, problems = inference_service.read(manifest)
        if service is None:
            refused.append(kinds.refusal(manifest, problems, source))
    if not refused:
        return
    if len(refused) == 1:
        raise refused[0]
    kind = (
        errors.UnsupportedError if all(type(one) is errors.UnsupportedError for one in refused) else errors.InputError
    )
    lines = "".join(f"\n  {one.where}: {one.message}" for one in refused)
    raise kind(
        f"{len(refused)} of {len(manifests)} resources are refused, none was applied:{lines}", code=refused[0].code
    )


files_option = click.option(
    "-f", "--filename", "files", multiple=True, required=True, metavar="FILE", help="A file, a folder, or - for stdin."
)
namespace_option = click.option("-n", "--namespace", default="", help="Namespace of resources that name none.")


@click.command(
    epilog="""\b
Examples:
  ondol apply -f serving.yaml
  kustomize build overlays/dev | ondol apply -f -
  ondol apply -f serving/ --wait 60"""
)
@files_option
@namespace_option
@click.option("--dry-run", is_flag=True, help="Check only; change nothing.")
@click.option("--wait", "seconds", type=float, default=0.0, help="Wait up to SECONDS until all are ready.")
@output.json_option
def apply(files: tuple[str, ...], namespace: str, dry_run: bool, seconds: float, as_json: bool) -> int:
    """Create or change resources from KServe manifests."""
    manifests = _read(files)
    _check(manifests, namespace)
    done: list[Json] = []
    with context.open_store() as store:
        for manifest, _ in manifests:
            name = str(manifest["metadata"]["name"])
            outcome = _dry(store, manifest) if dry_run else resources.apply(store, manifest)[1]
            notes = kinds.notes(manifest)
            done.append({"kind": manifest["kind"], "name": name, "outcome": outcome, "notes": notes})
            if not as_json:
                print(f"{_PLURAL}.{_GROUP}/{name} {outcome}{' (dry run)' if dry_run else ''}", flush=True)
                for note in notes:
                    print(f"note: {name}: {note}", file=sys.stderr)
        ready = _wait(store, manifests, seconds, as_json) if seconds and not dry_run else True
    if as_json:
        output.emit(done, True, lambda: None)
    return 0 if ready else 1


def _dry(store: Store, manifest: Json) -> str:
    metadata = manifest["metadata"]
    try:
        found = resources.get(store, manifest["kind"], metadata.get("namespace") or "default", metadata["name"])
    except errors.NotFoundError:
        return "created"
    return "unchanged" if found.manifest == manifest else "configured"


def _wait(store: Store, manifests: list[tuple[Json, str]], seconds: float, quiet: bool) -> bool:
    """Wait until every service is ready; say what keeps the others."""
    deadline = time.monotonic() + seconds
    waiting = [manifest["metadata"] for manifest, _ in manifests]
    while True:
        left = []
        for metadata in waiting:
            one = resources.get(store, inference_service.KIND, metadata.get("namespace") or "default", metadata["name"])
            current = one.status.get("observedGeneration") == one.generation
            if current and _condition(one, "Ready").get("status") == "True":
                if not quiet:
                    print(f"{_PLURAL}.{_GROUP}/{one.name} is ready at {one.status.get('url')}", flush=True)
            else:
                left.append(metadata)
        waiting = left
        if not waiting or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    for metadata in waiting:
        one = resources.get(store, inference_service.KIND, metadata.get("namespace") or "default", metadata["name"])
        why = _condition(one, "Ready").get("message") or "nothing reconciles it; is `ondol up` running?"
        print(f"{_PLURAL}.{_GROUP}/{one.name} is not ready: {why}", file=sys.stderr)
    return not waiting


def _condition(resource: Resource, kind: str) -> Json:
    found = (one for one in resource.status.get("conditions", []) if one.get("type") == kind)
    return next(found, {})


@click.command(
    epilog="""\b
Examples:
  ondol get isvc
  ondol get isvc flights -o yaml
  ondol get isvc/flights --json"""
)
@click.argument("kind", metavar="KIND")
@click.argument("name", required=False, default="")
@click.option("-o", "form", type=click.Choice(["table", "yaml", "json", "name"]), default="table", help="Output form.")
@click.option("-n", "--namespace", default="", help="Only this namespace.")
@output.json_option
def get(kind: str, name: str, form: str, namespace: str, as_json: bool) -> None:
    """List applied resources, or show one."""
    kind, name = _split(kind, name)
    with context.open_store() as store:
        found = [one for one in resources.every(store, kind) if not namespace or one.namespace == namespace]
        if name:
            found = [one for one in found if one.name == name] or [
                resources.get(store, kind, namespace or "default", name)
            ]
    whole = [_object(one) for one in found]
    value: Any = whole[0] if name else {"apiVersion": "v1", "kind": "List", "items": whole}
    if as_json or form == "json":
        output.emit(value, True, lambda: None)
    elif form == "yaml":
        import yaml

        print(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), end="")
    elif form == "name":
        print("\n".join(f"{_PLURAL}.{_GROUP}/{one.name}" for one in found))
    else:
        output.table(
            ["NAME", "URL", "READY", "PREV", "LATEST", "MODEL"],
            [_row(one) for one in found],
            empty="No resources found.",
        )


def _row(resource: Resource) -> list[object]:
    traffic = resource.status.get("components", {}).get("predictor", {}).get("traffic", [])
    latest = next((one["percent"] for one in traffic if one.get("latestRevision")), "")
    older = next((one["percent"] for one in traffic if not one.get("latestRevision")), "")
    state = resource.status.get("modelStatus", {}).get("transitionStatus", "")
    ready = _condition(resource, "Ready").get("status", "Unknown")
    return [resource.name, resource.status.get("url", ""), ready, str(older), str(latest), state]


def _object(resource: Resource) -> Json:
    metadata = {
        **resource.manifest.get("metadata", {}),
        "namespace": resource.namespace,
        "generation": resource.generation,
        "resourceVersion": str(resource.version),
    }
    return {**resource.manifest, "metadata": metadata, "status": resource.status}


@click.command(
    epilog="""\b
Example:
  ondol describe isvc flights"""
)
@click.argument("kind", metavar="KIND")
@click.argument("name", required=False, default="")
@click.option("-n", "--namespace", default="default", show_default=True)
@output.json_option
def describe(kind: str, name: str, namespace: str, as_json: bool) -> None:
    """Show one resource: what was asked for, what is, and why."""
    kind, name = _split(kind, name)
    if not name:
        raise errors.UsageError("which one? the name is missing", way_out=f"ondol describe {kind} NAME", code="USE-031")
    with context.open_store() as store:
        one = resources.get(store, kind, namespace, name)
    output.emit(_object(one), as_json, lambda: _describe(one))


def _describe(one: Resource) -> None:
    import yaml

    model = one.status.get("modelStatus", {})
    print(f"Name:       {one.name}\nNamespace:  {one.namespace}\nGeneration: {one.generation}")
    print(f"URL:        {one.status.get('url', '')}")
    print(f"Model:      {model.get('transitionStatus', 'not reconciled yet')}")
    if failure := model.get("lastFailureInfo"):
        print(f"Failure:    {failure.get('reason')}: {failure.get('message')}")
    for share in one.status.get("components", {}).get("predictor", {}).get("traffic", []):
        print(f"Traffic:    {share['percent']:>3} % {share['revisionName']} ({share['tag']})")
    print("Conditions:")
    for condition in one.status.get("conditions", []):
        reason = f"  {condition['reason']}: {condition.get('message', '')}" if "reason" in condition else ""
        print(f"  {condition['type']:<15} {condition['status']:<8} {condition['lastTransitionTime']}{reason}")
    print("Spec:")
    text = yaml.safe_dump(one.manifest.get("spec", {}), sort_keys=False, allow_unicode=True)
    print("".join(f"  {line}\n" for line in text.splitlines()), end="")


@click.command(
    epilog="""\b
Examples:
  ondol delete isvc flights
  ondol delete -f serving.yaml"""
)
@click.argument("kind", required=False, default="", metavar="KIND")
@click.argument("name", required=False, default="")
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="Delete what is in the file.")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("--ignore-not-found", is_flag=True, help="Exit 0 when there is nothing to delete.")
@output.json_option
def delete(kind: str, name: str, files: tuple[str, ...], namespace: str, ignore_not_found: bool, as_json: bool) -> None:
    """Delete resources; the control process then takes their routes away."""
    targets: list[tuple[str, str, str]] = []
    if files:
        for manifest, _ in _read(files):
            metadata = manifest.get("metadata") or {}
            targets.append(
                (str(manifest["kind"]), str(metadata.get("namespace") or namespace), str(metadata.get("name")))
            )
    else:
        chosen, name = _split(kind, name)
        targets.append((chosen, namespace, name))
    done: list[Json] = []
    with context.open_store() as store:
        for one in targets:
            try:
                resources.delete(store, *one)
            except errors.NotFoundError:
                if not ignore_not_found:
                    raise
                continue
            done.append({"kind": one[0], "name": one[2], "outcome": "deleted"})
            if not as_json:
                print(f'{_PLURAL}.{_GROUP} "{one[2]}" deleted')
    if as_json:
        output.emit(done, True, lambda: None)
