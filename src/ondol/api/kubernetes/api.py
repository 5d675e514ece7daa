"""The resource API as one function: a request in, an answer or a watch out.

Used over HTTP by the `door`, and in process by commands when nothing runs (`inprocess`), so that both are the same
code. Must not know about sockets nor event loops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ondol.api.kubernetes import columns, discovery, lists, openapi, openapi_v2, requests, served, status
from ondol.api.kubernetes.admission import MAX_BYTES
from ondol.api.kubernetes.kinds import Registry
from ondol.api.kubernetes.requests import Call, Target
from ondol.api.kubernetes.watching import Watch
from ondol.api.kubernetes.writing import Writer, Written
from ondol.base import errors
from ondol.store import resources
from ondol.store.connection import Store

Json = dict[str, Any]
_JSON = "application/json"
_HEALTH = ("/healthz", "/livez", "/readyz")


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    status: int
    body: bytes
    media_type: str = _JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    """Each becomes a `Warning` header, which kubectl prints."""


def answer(value: Any, code: int = 200, warnings: Sequence[str] = (), media_type: str = _JSON) -> Answer:
    """Return a value as JSON."""
    return Answer(code, msgspec.json.encode(value), media_type, warnings=warnings)


class ResourceApi:
    """The API over one store.

    :param registry: the kinds it serves.
    """

    def __init__(self, store: Store, registry: Registry = served.REGISTRY) -> None:
        self._store, self.registry = store, registry
        self._writer = Writer(store)

    def __call__(self, call: Call) -> Answer | Watch:
        """Answer a request; whatever the client did wrong is a `Status` with its reason."""
        try:
            if len(call.body) > MAX_BYTES:
                raise status.too_large(MAX_BYTES)
            return self._route(call)
        except status.StatusError as error:
            headers = {"Retry-After": "1"} if error.code == 429 else {}
            return replace(answer(error.to_json(), error.code), headers=headers)
        except RecursionError:
            return answer(status.bad_request("the object provided is nested too deeply").to_json(), 400)
        except errors.OndolError as error:
            reason = "InternalError" if error.http_status >= 500 else "BadRequest"
            text = f"{error.message} {error.way_out}".strip()
            return answer(status.StatusError(error.http_status, reason, text).to_json(), error.http_status)

    def _route(self, call: Call) -> Answer | Watch:
        parts = call.path.strip("/").split("/")
        if parts[0] == "apis" and len(parts) > 3:
            return self._resource(requests.target(self.registry, parts[1:]), call)
        if parts[0] == "api" and len(parts) > 2:
            return self._resource(requests.target(self.registry, ["", *parts[1:]]), call)
        if call.method != "GET":
            raise status.method_not_allowed(call.method)
        return self._about(parts, call)

    def _about(self, parts: list[str], call: Call) -> Answer:
        """Answer what clients ask about the server before they ask for resources."""
        path = f"/{'/'.join(parts)}"
        if path in _HEALTH:
            return Answer(200, b"ok", "text/plain")
        if path == "/version":
            return answer(discovery.VERSION)
        if parts[0] == "openapi":
            return self._openapi(parts[1:], call)
        form = discovery.aggregated(call.headers.get("accept", ""))
        if path in ("/api", "/apis"):
            core = path == "/api"
            if form:
                return answer(discovery.groups(self.registry, form, core=core), media_type=discovery.AGGREGATED[form])
            server = call.headers.get("host", "")
            return answer(discovery.legacy_core(server) if core else discovery.legacy_groups(self.registry))
        if parts[0] == "api" and len(parts) == 2:
            return answer(discovery.resources(self.registry, "", parts[1]))
        if parts[0] == "apis" and len(parts) == 2:
            return answer(discovery.legacy_group(self.registry, parts[1]))
        if parts[0] == "apis" and len(parts) == 3:
            return answer(discovery.resources(self.registry, parts[1], parts[2]))
        raise status.no_such_path()

    def _openapi(self, parts: list[str], call: Call) -> Answer:
        if parts == ["v3"]:
            return answer(openapi.index(self.registry, call.prefix))
        if parts == ["v2"]:
            if openapi_v2.PROTOBUF in call.headers.get("accept", ""):
                return Answer(200, openapi_v2.encoded(self.registry), openapi_v2.ANSWERED)
            return answer(openapi_v2.document(self.registry))
        if parts[:2] == ["v3", "api"] and len(parts) == 3:
            return answer(openapi.document(self.registry, "", parts[2]))
        if parts[:2] == ["v3", "apis"] and len(parts) == 4:
            return answer(openapi.document(self.registry, parts[2], parts[3]))
        raise status.no_such_path()

    def _resource(self, target: Target, call: Call) -> Answer | Watch:
        if call.method in ("GET", "HEAD"):
            return self._read(target, call)
        if target.kind.computed:
            raise status.method_not_allowed(call.method)
        if call.method == "POST" and not target.name:
            return _written(self._writer.create(target, call))
        if call.method == "PUT" and target.name:
            return _written(self._writer.replace(target, call))
        if call.method == "PATCH" and target.name:
            return _written(self._writer.patch(target, call))
        if call.method == "DELETE" and not target.subresource:
            if target.name:
                return answer(self._writer.delete(target, call))
            return self._listed(target, self._writer.delete_collection(target, call), "")
        raise status.method_not_allowed(call.method)

    def _read(self, target: Target, call: Call) -> Answer | Watch:
        include = _table(call)
        if call.flag("watch"):
            if target.kind.computed:
                raise status.method_not_allowed("watch")
            return Watch(self._store, target, call, include)
        if not target.name:
            return self._listed(target, lists.page(self._store, target, call), include, call)
        item = self._one(target)
        if include:
            metadata = {"resourceVersion": item["metadata"].get("resourceVersion", "")}
            return answer(columns.table(target.kind, [item], metadata, include))
        return answer(columns.partial(item) if _partial(call) else item)

    def _one(self, target: Target) -> Json:
        kind = target.kind
        if kind.computed:
            found = (one for one in lists.computed(self._store, target) if one["metadata"]["name"] == target.name)
            item = next(found, None)
        else:
            with self._store.read() as tx:
                stored = resources.find_in(tx, kind.kind, target.namespace, target.name)
            item = lists.in_version(stored.object(), kind, target.version) if stored else None
        if item is None:
            raise status.not_found(kind, target.name)
        return item

    @staticmethod
    def _listed(target: Target, page: lists.Page, include: str, call: Call | None = None) -> Answer:
        kind = target.kind
        if include:
            return answer(columns.table(kind, page.items, dict(page.metadata), include))
        if call is not None and _partial(call):
            items = [columns.partial(item) for item in page.items]
            about: Json = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            return answer({**about, "metadata": page.metadata, "items": items})
        about = {"apiVersion": kind.api_version(target.version), "kind": f"{kind.kind}List"}
        return answer({**about, "metadata": page.metadata, "items": page.items})


def _written(done: Written) -> Answer:
    return answer(done.object, 201 if done.created else 200, done.warnings)


def _table(call: Call) -> str:
    """Return what rows carry of their objects when the client takes tables first; empty when it wants objects."""
    first = call.headers.get("accept", "").partition(",")[0].replace(" ", "")
    if "as=Table" not in first.split(";"):
        return ""
    include = call.query.get("includeObject", "") or "Metadata"
    if include not in ("None", "Metadata", "Object"):
        raise status.bad_request(f'includeObject: Unsupported value: "{include}": use None, Metadata or Object')
    return include


def _partial(call: Call) -> bool:
    terms = call.headers.get("accept", "").replace(",", ";").split(";")
    return any(term.strip().startswith("as=PartialObjectMetadata") for term in terms)
