"""`ondol get|describe`: resources in tables, in YAML and in words, here or on a cluster."""

from __future__ import annotations

import sys
from typing import Any

import click

from ondol.backends.kubernetes.client import ApiKind
from ondol.base import errors
from ondol.cli import output, resource_access
from ondol.cli.resource_access import Access

Json = dict[str, Any]
_FOREVER = 3600 * 24


@click.command(
    epilog="""\b
Examples:
  ondol get isvc
  ondol get isvc -A -l team=search
  ondol get isvc flights -o yaml
  ondol get isvc -w"""
)
@click.argument("kind", metavar="KIND")
@click.argument("name", required=False, default="")
@click.option(
    "-o", "form", type=click.Choice(["table", "wide", "yaml", "json", "name"]), default="table", help="Output form."
)
@resource_access.options
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@click.option("-l", "--selector", default="", help="Only with these labels: a=b,c!=d.")
@click.option("-w", "--watch", "watching", is_flag=True, help="Go on with every change, until Ctrl-C.")
@output.json_option
def get(
    kind: str,
    name: str,
    form: str,
    namespace: str,
    cluster: str,
    kubeconfig: str,
    everywhere: bool,
    selector: str,
    watching: bool,
    as_json: bool,
) -> None:
    """List resources, or show one."""
    kind, name = resource_access.split(kind, name)
    form = "json" if as_json else form
    with resource_access.connect(cluster, kubeconfig, namespace) as access:
        of = access.client.named(kind)
        where = "" if everywhere else access.namespace
        if name and not everywhere:
            access.client.get(of, where, name)  # a wrong name is an error, an empty list is none
        tabular = form in ("table", "wide")
        listed = access.client.list(of, where, selector, name, table=tabular)
        if tabular:
            _show_table(listed, form == "wide", everywhere, _elsewhere(access, of, where) if not listed["rows"] else "")
        else:
            _show_items(listed["items"], of, form, single=bool(name))
        if watching:
            version = listed["metadata"]["resourceVersion"]
            for event, seen in access.client.watch(of, where, version, selector, name, seconds=_FOREVER, table=tabular):
                _show_event(event, seen, of, form, everywhere)


def _show_items(items: list[Json], kind: ApiKind, form: str, *, single: bool) -> None:
    value: Json = items[0] if single and items else {"apiVersion": "v1", "kind": "List", "items": items}
    if form == "json":
        output.emit(value, True, lambda: None)
    elif form == "yaml":
        import yaml

        print(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), end="")
    else:
        print("".join(f"{kind.label}/{one['metadata']['name']}\n" for one in items), end="")


def _cells(table: Json, wide: bool, everywhere: bool) -> tuple[list[str], list[list[str]]]:
    shown = [index for index, one in enumerate(table["columnDefinitions"]) if wide or not one.get("priority")]
    columns = [str(table["columnDefinitions"][index]["name"]).upper() for index in shown]
    rows = [
        ["" if row["cells"][index] is None else str(row["cells"][index]) for index in shown] for row in table["rows"]
    ]
    if everywhere:
        columns.insert(0, "NAMESPACE")
        for row, cells in zip(table["rows"], rows, strict=True):
            cells.insert(0, str(row["object"]["metadata"].get("namespace", "")))
    return columns, rows


def _show_table(table: Json, wide: bool, everywhere: bool, empty: str) -> None:
    columns, rows = _cells(table, wide, everywhere)
    output.table(columns, rows, empty=empty, folded=False)


def _elsewhere(access: Access, kind: ApiKind, where: str) -> str:
    """Return what to say when nothing is found: where there would be something, when it is cheap to know."""
    if not kind.namespaced or not where:
        return "No resources found."
    others = access.client.list(kind)["items"] if access.local else []
    names = sorted({one["metadata"]["namespace"] for one in others} - {where})
    hint = f" There are some in {', '.join(names)}: -n {names[0]}, or -A." if names else ""
    return f"No resources found in {where} namespace.{hint}"


def _show_event(event: str, seen: Json, kind: ApiKind, form: str, everywhere: bool) -> None:
    if event == "ERROR":
        raise errors.UpstreamError(str(seen.get("message")), way_out="Run the command again.", code="UPS-320")
    if form in ("table", "wide"):
        for cells in _cells(seen, form == "wide", everywhere)[1]:
            print("   ".join(cells) + ("   (deleted)" if event == "DELETED" else ""), flush=True)
    else:
        _show_items([seen], kind, form, single=True)
        sys.stdout.flush()


@click.command(
    epilog="""\b
Example:
  ondol describe isvc flights"""
)
@click.argument("kind", metavar="KIND")
@click.argument("name", required=False, default="")
@resource_access.options
@output.json_option
def describe(kind: str, name: str, namespace: str, cluster: str, kubeconfig: str, as_json: bool) -> None:
    """Show one resource: what was asked for, what is, and why."""
    kind, name = resource_access.split(kind, name)
    resource_access.need(name, "describe", kind)
    with resource_access.connect(cluster, kubeconfig, namespace) as access:
        of = access.client.named(kind)
        one = access.client.get(of, access.namespace, name)
    output.emit(one, as_json, lambda: _describe(one))


def _describe(one: Json) -> None:
    import yaml

    metadata, status = one["metadata"], one.get("status", {})
    model = status.get("modelStatus", {})
    print(f"Name:       {metadata['name']}\nNamespace:  {metadata.get('namespace', '')}")
    print(f"Generation: {metadata.get('generation', '')}\nURL:        {status.get('url', '')}")
    print(f"Model:      {model.get('transitionStatus', 'not reconciled yet')}")
    if failure := model.get("lastFailureInfo"):
        print(f"Failure:    {failure.get('reason')}: {failure.get('message')}")
    for share in status.get("components", {}).get("predictor", {}).get("traffic", []):
        print(f"Traffic:    {share['percent']:>3} % {share['revisionName']} ({share.get('tag', '')})")
    print("Conditions:")
    for condition in status.get("conditions", []):
        reason = f"  {condition['reason']}: {condition.get('message', '')}" if "reason" in condition else ""
        changed = condition.get("lastTransitionTime", "")
        print(f"  {condition['type']:<15} {condition['status']:<8} {changed}{reason}")
    print("Spec:")
    text = yaml.safe_dump(one.get("spec", {}), sort_keys=False, allow_unicode=True)
    print("".join(f"  {line}\n" for line in text.splitlines()), end="")
