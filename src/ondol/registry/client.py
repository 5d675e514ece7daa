"""The registry for processes that should stay light: asks the control process, which has MLflow loaded already.

`import mlflow` costs 1 to 3 s; these calls cost milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from ondol.base import errors
from ondol.records import codec
from ondol.registry.models import ModelVersion, RegisteredModel

_SECONDS = 180.0  # a large model is unpickled, pickled and copied
Json = Any


class RegistryClient:
    """The registry of a running Ondol.

    :param control_url: where its control process listens.
    :param api_key: needed when that is not loopback.
    """

    def __init__(self, control_url: str, api_key: str = "") -> None:
        self._url = f"{control_url}/api/ondol/registry"
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(timeout=_SECONDS, headers=headers, trust_env=False)

    def register(
        self,
        name: str,
        model_path: Path,
        run_id: str = "",
        tags: Mapping[str, str] | None = None,
        *,
        aliases: Sequence[str] = (),
        example: Sequence[Mapping[str, Any]] | None = None,
    ) -> ModelVersion:
        """Register a model (see `Registry.register`)."""
        request = {
            "name": name,
            "path": str(model_path.resolve()),
            "run": run_id,
            "tags": dict(tags or {}),
            "aliases": list(aliases),
            "example": list(example) if example else None,
        }
        return codec.typed(self._ask("POST", "/register", request), ModelVersion)

    def models(self) -> list[RegisteredModel]:
        """Return every registered model."""
        return codec.typed(self._ask("GET", "/models"), list[RegisteredModel])

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version; an empty version removes it."""
        self._ask("POST", "/alias", {"name": name, "alias": alias, "version": version})

    def mirror(self) -> int:
        """Mirror ended pipeline runs to MLflow now and return how many were new."""
        return int(self._ask("POST", "/mirror", {})["mirrored"])

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _ask(self, method: str, path: str, body: Json = None) -> Json:
        try:
            answer = self._http.request(method, self._url + path, json=body)
        except httpx.HTTPError as error:
            raise errors.UpstreamError(
                f"the control process does not answer: {error}",
                where=self._url,
                way_out="`ondol status` shows it; `ondol up` starts it.",
                code="UPS-012",
            ) from error
        value = answer.json() if "json" in answer.headers.get("content-type", "") else {"error": answer.text[:300]}
        if answer.is_error:
            kind = {400: errors.InputError, 404: errors.NotFoundError, 409: errors.ConflictError}
            raise kind.get(answer.status_code, errors.UpstreamError)(
                str(value.get("error", answer.status_code)),
                where=str(value.get("where", self._url)),
                way_out=str(value.get("way_out", "")),
                code=str(value.get("code", "")),
            )
        return value
