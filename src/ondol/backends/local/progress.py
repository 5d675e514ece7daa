"""How far the controller of InferenceServices is with each manifest: kept between its looks, read by its status.

Must not decide anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ondol.formats import inference_service
from ondol.store.resources import Resource


@dataclass(slots=True)
class Progress:
    """How far one generation of one manifest is."""

    generation: int
    state: str = "resolving"
    """`resolving`, `moving`, `done`, `failed` (nothing more to do until the manifest changes) or `stopped`."""

    release: str = ""
    variants: dict[str, str] = field(default_factory=dict)
    """Releases of `spec.canary[]`, by name."""

    runtime: str = ""
    """Kind and name of the user's own runtime that serves the model, `ServingRuntime/mine`; empty: none does."""

    rollout: str = ""
    """Id of the rollout that was started because of this generation."""

    staged_at: float = 0.0
    """When the release was put on the route to be loaded."""

    reason: str = ""
    message: str = ""
    tries: int = 0
    retry_at: float = 0.0
    uid: str = ""
    """Of the object: one deleted and made anew begins anew, though its generation is the same."""

    stop: str = ""
    """The stop annotation; annotations do not count as a generation."""

    @classmethod
    def of(cls, resource: Resource) -> Progress:
        """Return the beginning of what the manifest asks for now."""
        return cls(resource.generation, uid=resource.uid, stop=_stop(resource))

    def is_of(self, resource: Resource) -> bool:
        """Whether this is progress with what the manifest asks for now."""
        same_object = self.uid in ("", resource.uid)
        return same_object and (self.generation, self.stop) == (resource.generation, _stop(resource))


def _stop(resource: Resource) -> str:
    return str(resource.manifest["metadata"].get("annotations", {}).get(inference_service.STOP_ANNOTATION, ""))
