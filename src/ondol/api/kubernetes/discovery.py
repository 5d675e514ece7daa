"""Discovery: which groups, versions and kinds there are, in the old form and the aggregated one.

Source: Kubernetes' `meta.k8s.io/v1` (APIGroupList, APIResourceList) and `apidiscovery.k8s.io/v2`.
"""

from __future__ import annotations

from typing import Any

from ondol.api.kubernetes import status
from ondol.api.kubernetes.kinds import Kind, Registry

Json = dict[str, Any]
_STATUS_VERBS = ["get", "patch", "update"]
AGGREGATED = {
    version: f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    for version in ("v2", "v2beta1")
}

VERSION: Json = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.0+ondol",
    "gitCommit": "",
    "gitTreeState": "",
    "buildDate": "",
    "goVersion": "",
    "compiler": "",
    "platform": "",
}
"""The Kubernetes whose API this follows; clients compare it with their own."""


def aggregated(accept: str) -> str:
    """Return the version of aggregated discovery that a client takes, or an empty string."""
    for one in accept.split(","):
        if "as=APIGroupDiscoveryList" in one:
            return next((version for version in AGGREGATED if f"v={version}" in one.replace(" ", "").split(";")), "")
    return ""


def groups(registry: Registry, version: str, *, core: bool) -> Json:
    """Return `/api` (the core) or `/apis` (the other groups) in the aggregated form."""
    items = []
    for group, versions in registry.groups.items():
        if (group == "") == core:
            found = [_version(registry, group, one) for one in versions]
            items.append({"metadata": {"name": group, "creationTimestamp": None}, "versions": found})
    about: Json = {"kind": "APIGroupDiscoveryList", "apiVersion": f"apidiscovery.k8s.io/{version}"}
    return {**about, "metadata": {}, "items": items}


def _version(registry: Registry, group: str, version: str) -> Json:
    kinds = [_aggregated(kind, version) for kind in registry.of_version(group, version)]
    return {"version": version, "freshness": "Current", "resources": kinds}


def _aggregated(kind: Kind, version: str) -> Json:
    gvk = {"group": kind.group, "version": version, "kind": kind.kind}
    found: Json = {
        "resource": kind.plural,
        "responseKind": gvk,
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    found |= {"shortNames": list(kind.short_names)} if kind.short_names else {}
    found |= {"categories": list(kind.categories)} if kind.categories else {}
    if kind.has_status:
        found["subresources"] = [{"subresource": "status", "responseKind": gvk, "verbs": _STATUS_VERBS}]
    return found


def legacy_core(server: str) -> Json:
    """Return `/api` in the old form."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}],
    }


def legacy_groups(registry: Registry) -> Json:
    """Return `/apis` in the old form."""
    found = [_group(group, versions) for group, versions in registry.groups.items() if group]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def legacy_group(registry: Registry, group: str) -> Json:
    """Return `/apis/GROUP`.

    :raises StatusError: 404.
    """
    if not group or group not in registry.groups:
        raise status.no_such_path()
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, registry.groups[group])}


def _group(group: str, versions: list[str]) -> Json:
    listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}


def resources(registry: Registry, group: str, version: str) -> Json:
    """Return `/api/v1` or `/apis/GROUP/VERSION`.

    :raises StatusError: 404.
    """
    kinds = registry.of_version(group, version)
    if not kinds:
        raise status.no_such_path()
    found = []
    for kind in kinds:
        one: Json = {
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(kind.verbs),
        }
        of_status = {**one, "name": f"{kind.plural}/status", "singularName": "", "verbs": _STATUS_VERBS}
        one |= {"shortNames": list(kind.short_names)} if kind.short_names else {}
        one |= {"categories": list(kind.categories)} if kind.categories else {}
        found += [one, of_status] if kind.has_status else [one]
    version_name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version_name, "resources": found}
