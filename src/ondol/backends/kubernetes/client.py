"""A client of Kubernetes' resource API: discovery, objects, tables, server-side apply, watches.

Knows no kind in advance: what there is, is asked. The same for a cluster, for a running Ondol, and for one that does
not run (its transport then reads the store). Errors of the server become errors of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from ondol.base import errors

Json = dict[str, Any]
MANAGER = "ondol"
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
_APPLY = "application/apply-patch+yaml"
_PAGE = 500


@dataclass(frozen=True, slots=True)
class ApiKind:
    """A kind that a server has."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    namespaced: bool

    @property
    def label(self) -> str:
        """Return how kubectl names the kind: `inferenceservice.serving.kserve.io`."""
        return f"{self.singular}.{self.group}" if self.group else self.singular

    def path(self, namespace: str = "", name: str = "") -> str:
        """Return the path of an object or, without a name, of a list."""
        begin = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = f"{begin}/namespaces/{namespace}" if self.namespaced and namespace else begin
        return f"{within}/{self.plural}" + (f"/{name}" if name else "")


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did."""

    object: Json
    created: bool
    warnings: tuple[str, ...]


class ResourceClient:
    """The API of one server.

    :param http: with the server's URL and credentials, or with a transport of its own.
    """

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._kinds: list[ApiKind] = []

    def kinds(self) -> list[ApiKind]:
        """Return what the server has, in its preferred versions first."""
        if not self._kinds:
            found = [one for path in ("/api", "/apis") for one in self._discovered(path)]
            self._kinds = found
        return self._kinds

    def _discovered(self, path: str) -> Iterator[ApiKind]:
        answer = self._send("GET", path, headers={"Accept": _AGGREGATED})
        if answer.get("kind") != "APIGroupDiscoveryList":
            yield from self._discovered_slowly(answer)
            return
        for group in answer["items"]:
            for version in group["versions"]:
                for one in version.get("resources", []):
                    yield ApiKind(
                        group["metadata"].get("name", ""),
                        version["version"],
                        one["responseKind"]["kind"],
                        one["resource"],
                        one.get("singularResource") or one["responseKind"]["kind"].lower(),
                        tuple(one.get("shortNames", ())),
                        one["scope"] == "Namespaced",
                    )

    def _discovered_slowly(self, answer: Json) -> Iterator[ApiKind]:
        """Ask group by group, as servers before Kubernetes 1.27 want it."""
        groups = [(one["name"], [each["version"] for each in one["versions"]]) for one in answer.get("groups", [])]
        for group, versions in groups or [("", answer.get("versions", []))]:
            for version in versions:
                listed = self._send("GET", f"/apis/{group}/{version}" if group else f"/api/{version}")
                for one in listed.get("resources", []):
                    if "/" not in one["name"]:
                        singular, short = (
                            one.get("singularName") or one["kind"].lower(),
                            tuple(one.get("shortNames", ())),
                        )
                        yield ApiKind(group, version, one["kind"], one["name"], singular, short, one["namespaced"])

    def named(self, text: str) -> ApiKind:
        """Return the kind that somebody means by `isvc`, `inferenceservices` or `inferenceservices.serving.kserve.io`.

        :raises UsageError: when the server has none.
        """
        word, _, group = text.lower().partition(".")
        for one in self.kinds():
            if word in (one.plural, one.singular, *one.short_names) and group in ("", one.group):
                return one
        known = sorted({(one.short_names or (one.plural,))[0] for one in self.kinds()})
        raise errors.UsageError(
            f"no resource type {text!r} here", way_out=f"There are: {', '.join(known)}.", code="USE-030"
        )

    def of_manifest(self, manifest: Json) -> ApiKind | None:
        """Return the kind of a manifest, or None when the server does not have it."""
        group, _, version = str(manifest.get("apiVersion")).rpartition("/")
        wanted = (group, version, manifest.get("kind"))
        return next((one for one in self.kinds() if (one.group, one.version, one.kind) == wanted), None)

    def get(self, kind: ApiKind, namespace: str, name: str) -> Json:
        """Return an object.

        :raises NotFoundError: when there is none.
        """
        return self._send("GET", kind.path(namespace, name))

    def find(self, kind: ApiKind, namespace: str, name: str) -> Json | None:
        """Return an object, or None."""
        try:
            return self.get(kind, namespace, name)
        except errors.NotFoundError:
            return None

    def list(
        self, kind: ApiKind, namespace: str = "", selector: str = "", name: str = "", *, table: bool = False
    ) -> Json:
        """Return a list, or the table the server makes of it; all its pages.

        :param namespace: empty for all of them.
        :param selector: labels.
        """
        query = {"limit": str(_PAGE), "labelSelector": selector}
        query |= {"fieldSelector": f"metadata.name={name}"} if name else {}
        headers = {"Accept": _TABLE} if table else {}
        part = "rows" if table else "items"
        whole = page = self._send("GET", kind.path(namespace), query, headers=headers)
        while page["metadata"].get("continue"):
            page = self._send(
                "GET", kind.path(namespace), {**query, "continue": page["metadata"]["continue"]}, headers=headers
            )
            whole[part] = [*whole[part], *page[part]]
        return whole

    def apply(
        self, kind: ApiKind, manifest: Json, namespace: str, *, force: bool = False, dry: bool = False,
        strict: bool = True,
    ) -> Applied:  # fmt: skip
        """Apply a manifest on the server's side as `ondol`.

        :param strict: whether unknown fields are refused; else they are dropped.
        :raises ConflictError: when it would take a field from somebody else, unless forced.
        :raises InputError: for whatever the server does not take, with every place.
        """
        query = {
            "fieldManager": MANAGER,
            "fieldValidation": "Strict" if strict else "Ignore",
            "force": str(force).lower(),
        }
        query |= {"dryRun": "All"} if dry else {}
        answer = self._raw("PATCH", kind.path(namespace, str(manifest["metadata"]["name"])), query, manifest, _APPLY)
        return Applied(_json(answer), answer.status_code == 201, _warnings(answer))

    def delete(self, kind: ApiKind, namespace: str, name: str, *, dry: bool = False) -> Json:
        """Delete an object.

        :raises NotFoundError: when there is none.
        """
        return self._send("DELETE", kind.path(namespace, name), {"dryRun": "All"} if dry else {})

    def watch(
        self,
        kind: ApiKind,
        namespace: str,
        version: str,
        selector: str = "",
        name: str = "",
        *,
        seconds: int,
        table: bool = False,
    ) -> Iterator[tuple[str, Json]]:
        """Yield what happens since a version: the event's type and the object, or its table; ends after `seconds`."""
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(seconds), "labelSelector": selector}
        query |= {"fieldSelector": f"metadata.name={name}"} if name else {}
        headers = {"Accept": _TABLE} if table else {}
        try:
            with self._http.stream(
                "GET", self._url(kind.path(namespace)), params=query, headers=headers, timeout=seconds + 30.0
            ) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise error_of(answer)
                for line in answer.iter_lines():
                    event = json.loads(line)
                    yield event["type"], event["object"]
        except httpx.TransportError as error:
            raise _unreachable(self._http, error) from error

    def _url(self, path: str) -> str:
        return f"{str(self._http.base_url).rstrip('/')}{path}"

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        return _json(self._raw(method, path, query or {}, headers=headers or {}))

    def _raw(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Json | None = None,
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        sent = {**(headers or {}), **({"Content-Type": content_type} if content_type else {})}
        content = msgspec.json.encode(body) if body is not None else None
        try:
            answer = self._http.request(method, self._url(path), params=dict(query), content=content, headers=sent)
        except httpx.TransportError as error:
            raise _unreachable(self._http, error) from error
        if answer.status_code >= 400:
            raise error_of(answer)
        return answer


def _json(answer: httpx.Response) -> Json:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise errors.UpstreamError(
            "the server's answer is not a Kubernetes object", where=str(answer.url), code="UPS-320"
        )
    return found


def _unreachable(http: httpx.Client, error: httpx.TransportError) -> errors.UpstreamError:
    return errors.UpstreamError(
        f"cannot reach the server: {error}",
        where=str(http.base_url),
        way_out="Is the cluster up, and is it the right one? --context NAME chooses another.",
        code="UPS-320",
    )


def _warnings(answer: httpx.Response) -> tuple[str, ...]:
    found = []
    for value in answer.headers.get_list("warning"):
        text = value.partition('"')[2].rpartition('"')[0]
        found.append(text.replace('\\"', '"').replace("\\\\", "\\"))
    return tuple(found)


def error_of(answer: httpx.Response) -> errors.OndolError:
    """Return the error that a `Status` stands for; causes are kept in `causes`."""
    try:
        status = answer.json()
    except ValueError:
        status = None
    if not isinstance(status, dict):
        status = {"message": answer.text[:500]}
    code, reason = answer.status_code, str(status.get("reason", ""))
    message = str(status.get("message") or f"HTTP {code}")
    causes = (status.get("details") or {}).get("causes") or []
    if code == 404:
        return errors.NotFoundError(message, way_out="`ondol get KIND` lists those there are.", code="NOF-006")
    if code == 409:
        owned = any(cause.get("reason") == "FieldManagerConflict" for cause in causes)
        way_out = (
            "Take the fields over with --force-conflicts, or leave them out." if owned else "Read it again and repeat."
        )
        return errors.ConflictError(message, way_out=way_out, code="CON-320")
    if code in (401, 403):
        return errors.RefusedError(message, where=str(answer.url), way_out="Check the credentials.", code="REF-320")
    if code in (400, 413, 415, 422):
        return InvalidObject(message, causes) if reason != "Invalid" or not causes else InvalidObject("", causes)
    return errors.UpstreamError(message, where=str(answer.url), code="UPS-320")


class InvalidObject(errors.InputError):
    """The server does not take an object; `causes` has each place with its reason.

    :param message: what is wrong as a whole; empty when the causes say it all.
    """

    default_code = "INP-011"

    def __init__(self, message: str, causes: list[Json]) -> None:
        lines = [f"{one.get('field')}: {one.get('message')}" for one in causes]
        super().__init__(message or "; ".join(lines))
        self.causes = causes

    @property
    def unsupported(self) -> bool:
        """Whether the object is right and only this server does not honour it."""
        return bool(self.causes) and all(one.get("reason") == "FieldValueForbidden" for one in self.causes)
