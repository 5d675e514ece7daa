"""`ondol apply|delete|wait`: kubectl's habits on resources, here or on a cluster; `resource_views` shows them."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

from ondol.backends.kubernetes.client import ApiKind, InvalidObject, ResourceClient
from ondol.base import errors
from ondol.cli import output, resource_access
from ondol.cli.resource_access import Access
from ondol.formats import serving_runtime
from ondol.formats.resource.documents import Document

Json = dict[str, Any]
_UNKNOWN_FIELD = re.compile(r'(unknown|duplicate) field "([^"]+)"')


files_option = click.option(
    "-f", "--filename", "files", multiple=True, required=True, metavar="FILE", help="A file, a folder, or - for stdin."
)


@click.command(
    epilog="""\b
Examples:
  ondol apply -f serving.yaml
  kustomize build overlays/dev | ondol apply -f -
  ondol apply -f serving/ --wait 60
  ondol apply -f serving.yaml --context my-cluster"""
)
@files_option
@resource_access.options
@click.option("--dry-run", is_flag=True, help="Check only; change nothing.")
@click.option("--force-conflicts", is_flag=True, help="Take fields that somebody else set.")
@click.option("--wait", "seconds", type=float, default=0.0, help="Wait up to SECONDS until all are ready.")
@output.json_option
def apply(
    files: tuple[str, ...],
    namespace: str,
    cluster: str,
    kubeconfig: str,
    dry_run: bool,
    force_conflicts: bool,
    seconds: float,
    as_json: bool,
) -> int:
    """Create or change resources from their manifests (server-side apply)."""
    documents = resource_access.read(files)
    done: list[Json] = []
    with resource_access.connect(cluster, kubeconfig, namespace) as access:
        targets = _checked(access, documents, force_conflicts)
        for document, kind, where in targets:
            name = resource_access.name_of(document.manifest)
            before = access.client.find(kind, where, name)
            applied = access.client.apply(kind, document.manifest, where, force=force_conflicts, dry=dry_run)
            outcome = _outcome(before, applied.object)
            done.append({"kind": kind.kind, "name": name, "outcome": outcome, "notes": list(applied.warnings)})
            if not as_json:
                print(f"{kind.label}/{name} {outcome}{' (dry run)' if dry_run else ''}", flush=True)
                for note in applied.warnings:
                    print(f"note: {name}: {note}", file=sys.stderr)
        ready = _all_ready(access, targets, seconds, as_json) if seconds and not dry_run else True
    if as_json:
        output.emit(done, True, lambda: None)
    return 0 if ready else 1


def _outcome(before: Json | None, after: Json) -> str:
    if before is None:
        return "created"
    told = [{**one, "metadata": {**one["metadata"], "managedFields": None}} for one in (before, after)]
    return "unchanged" if told[0] == told[1] else "configured"


def _checked(access: Access, documents: list[Document], force: bool) -> list[tuple[Document, ApiKind, str]]:
    """Check all manifests before the first is applied.

    :raises InputError: listing every problem of every manifest.
    """
    found: list[tuple[Document, ApiKind, str]] = []
    refused: list[errors.OndolError] = []
    for document in documents:
        kind = access.client.of_manifest(document.manifest)
        if kind is None:
            refused.append(_unknown_kind(document, access))
            continue
        try:
            if not resource_access.name_of(document.manifest):
                raise InvalidObject("metadata.name: Required value", [])
            where = resource_access.namespace_of(document.manifest, kind, access)
            access.client.apply(kind, document.manifest, where, force=force, dry=True)
            found.append((document, kind, where))
        except InvalidObject as error:
            if access.local and _runtime_comes_too(document, documents):
                found.append((document, kind, where))
                continue
            refused.append(_refusal(document, _with_the_rest(access, document, kind, error)))
        except errors.NotFoundError:
            if access.local:
                raise
            found.append((document, kind, where))  # its namespace may be in the same file
    if len(refused) == 1:
        raise refused[0]
    if refused:
        plain = all(type(one) is errors.UnsupportedError for one in refused)
        lines = "".join(f"\n  {one.where}: {one.message}" for one in refused)
        raise (errors.UnsupportedError if plain else errors.InputError)(
            f"{len(refused)} of {len(documents)} resources are refused, none was applied:{lines}", code=refused[0].code
        )
    return sorted(found, key=lambda one: one[1].kind not in serving_runtime.KINDS)  # before what they serve


def _with_the_rest(access: Access, document: Document, kind: ApiKind, error: InvalidObject) -> InvalidObject:
    """Return everything that is wrong with a manifest: a server that finds an unknown field looks no further."""
    unknown: list[Json] = [
        {"field": field, "message": f"{word} field"} for word, field in _UNKNOWN_FIELD.findall(error.message)
    ]
    if error.causes or not unknown:
        return error
    try:
        where = resource_access.namespace_of(document.manifest, kind, access)
        access.client.apply(kind, document.manifest, where, dry=True, strict=False)
    except InvalidObject as further:
        unknown += further.causes
    except errors.OndolError:
        pass  # the unknown fields are reason enough
    return InvalidObject("", unknown)


def _runtime_comes_too(document: Document, documents: list[Document]) -> bool:
    """Whether a manifest is valid with the serving runtimes of the same files, which are not applied yet."""
    others = serving_runtime.among(one.manifest for one in documents)
    return bool(others) and not serving_runtime.check(document.manifest, lambda: others).problems


def _unknown_kind(document: Document, access: Access) -> errors.UnsupportedError:
    kind, version = document.manifest.get("kind"), document.manifest.get("apiVersion")
    where = "the local backend" if access.local else "the cluster"
    others = [f"{one.group}/{one.version}" for one in access.client.kinds() if one.kind == kind]
    way_out = f"It is served as apiVersion {others[0]}." if others else ""
    text = f"kind {kind!r} is not served by {where}" + (f" in {version!r}" if others else "")
    return errors.UnsupportedError(text, where=document.where("kind"), way_out=way_out, code="UNS-012")


def _refusal(document: Document, error: InvalidObject) -> errors.InputError:
    """Return the one error that lists every problem of a manifest with its line."""
    fields = [str(one.get("field")) for one in error.causes]
    first = document.where(fields[0]) if fields else document.where("")
    kind, name = document.manifest.get("kind"), resource_access.name_of(document.manifest)
    if not error.causes:
        return errors.InputError(f"{kind} {name!r}: {error.message}", where=first, code="INP-011")
    count = f"{len(fields)} field{'s' if len(fields) > 1 else ''}"
    lines = "".join(
        f"\n    line {document.line(str(one.get('field')))}: {one.get('field')}: {one.get('message')}"
        for one in error.causes
    )
    if error.unsupported:
        return errors.UnsupportedError(
            f"{kind} {name!r}: {count} not honoured here:{lines}",
            where=first,
            way_out="Remove them, or apply the file to a cluster: --context NAME.",
            code="UNS-010",
        )
    return errors.InputError(
        f"{kind} {name!r} is not valid: {count}:{lines}",
        where=first,
        way_out=f"`kubectl explain {str(kind).lower()}.spec` describes the fields.",
        code="INP-011",
    )


def _is_ready(item: Json | None) -> bool:
    current = item is not None and resource_access.is_current(item)
    return current and item is not None and resource_access.condition(item, "Ready").get("status") == "True"


def _all_ready(access: Access, targets: list[tuple[Document, ApiKind, str]], seconds: float, quiet: bool) -> bool:
    """Wait until every object that has conditions is ready; say what keeps the others."""
    ready = True
    for document, kind, where in targets:
        name = resource_access.name_of(document.manifest)
        if not kind.group or kind.kind in serving_runtime.KINDS:  # these are there or not
            continue
        came, item = resource_access.until(access.client, kind, where, name, _is_ready, seconds)
        if came and item is not None and not quiet:
            print(f"{kind.label}/{name} is ready at {item['status'].get('url')}", flush=True)
        elif not came:
            ready = False
            print(f"{kind.label}/{name} is not ready: {_why(item, access)}", file=sys.stderr)
    return ready


def _why(item: Json | None, access: Access) -> str:
    if item is None:
        return "it is gone"
    found = resource_access.condition(item, "Ready")
    said = found.get("message") or found.get("reason")
    if said:
        return str(said)
    return "its controller has not looked at it yet" if access.runs else "nothing reconciles it; is `ondol up` running?"


@click.command(
    epilog="""\b
Examples:
  ondol delete isvc flights
  ondol delete -f serving.yaml
  ondol delete isvc -l team=search"""
)
@click.argument("kind", required=False, default="", metavar="KIND")
@click.argument("name", required=False, default="")
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE", help="Delete what is in the file.")
@resource_access.options
@click.option("-l", "--selector", default="", help="Delete those with these labels.")
@click.option("--ignore-not-found", is_flag=True, help="Exit 0 when there is nothing to delete.")
@output.json_option
def delete(
    kind: str,
    name: str,
    files: tuple[str, ...],
    namespace: str,
    cluster: str,
    kubeconfig: str,
    selector: str,
    ignore_not_found: bool,
    as_json: bool,
) -> None:
    """Delete resources; the control process then takes their routes away."""
    kind, name = resource_access.split(kind, name)
    done: list[Json] = []
    with resource_access.connect(cluster, kubeconfig, namespace) as access:
        for of, where, one in _meant(access, files, kind, name, selector):
            try:
                access.client.delete(of, where, one)
            except errors.NotFoundError:
                if not ignore_not_found:
                    raise
                continue
            done.append({"kind": of.kind, "name": one, "outcome": "deleted"})
            if not as_json:
                print(f'{of.label} "{one}" deleted')
    if as_json:
        output.emit(done, True, lambda: None)


def _meant(
    access: Access, files: tuple[str, ...], kind: str, name: str, selector: str
) -> list[tuple[ApiKind, str, str]]:
    """Return what a deletion is about: kind, namespace, name of each."""
    if not files:
        of = access.client.named(kind)
        if name:
            return [(of, access.namespace, name)]
        if not selector:
            resource_access.need(name, "delete", kind)
        listed = access.client.list(of, access.namespace, selector)["items"]
        return [(of, access.namespace, one["metadata"]["name"]) for one in listed]
    found = []
    for document in resource_access.read(files):
        one = access.client.of_manifest(document.manifest)
        if one is None:
            raise _unknown_kind(document, access)
        where = resource_access.namespace_of(document.manifest, one, access)
        found.append((one, where, resource_access.name_of(document.manifest)))
    return found


@click.command(
    epilog="""\b
Examples:
  ondol wait isvc/flights
  ondol wait isvc flights --for condition=PredictorReady --timeout 120
  ondol wait isvc/flights --for delete"""
)
@click.argument("kind", metavar="KIND")
@click.argument("name", required=False, default="")
@click.option("--for", "what", default="condition=Ready", show_default=True, help="condition=NAME[=VALUE], or delete.")
@click.option("--timeout", "seconds", type=float, default=60.0, show_default=True, help="Seconds.")
@resource_access.options
@output.json_option
def wait(
    kind: str, name: str, what: str, seconds: float, namespace: str, cluster: str, kubeconfig: str, as_json: bool
) -> int:
    """Wait until a resource has a condition, or is gone."""
    kind, name = resource_access.split(kind, name)
    resource_access.need(name, "wait", kind)
    with resource_access.connect(cluster, kubeconfig, namespace) as access:
        of = access.client.named(kind)
        came, item = _waited(access.client, of, access.namespace, name, what, seconds)
        said = "" if came else _why(item, access)
    if as_json:
        output.emit({"name": name, "for": what, "met": came, "why": said}, True, lambda: None)
    elif came:
        print(f"{of.label}/{name} {'deleted' if what == 'delete' else 'condition met'}")
    else:
        print(f"{of.label}/{name}: not met within {seconds:g} s: {said}", file=sys.stderr)
    return 0 if came else 1


def _waited(
    client: ResourceClient, kind: ApiKind, namespace: str, name: str, what: str, seconds: float
) -> tuple[bool, Json | None]:
    if what == "delete":
        return resource_access.until(client, kind, namespace, name, lambda item: item is None, seconds)
    word, _, wanted = what.partition("=")
    name_of_condition, _, value = wanted.partition("=")
    if word != "condition" or not wanted:
        raise errors.UsageError(
            f"cannot wait for {what!r}", way_out="Use --for condition=Ready or --for delete.", code="USE-320"
        )
    client.get(kind, namespace, name)  # waiting for what is not there would only time out

    def met(item: Json | None) -> bool:
        if item is None or not resource_access.is_current(item):
            return False
        found = resource_access.condition(item, name_of_condition).get("status", "")
        return str(found).lower() == (value or "true").lower()

    return resource_access.until(client, kind, namespace, name, met, seconds)
