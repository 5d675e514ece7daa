"""Where MLflow's aliases and what is served disagree: pure comparison.

The release pointer says what is served; an alias moved elsewhere is a proposal that somebody has to see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ondol.records.release import Release
from ondol.records.rollout import Route
from ondol.registry.models import RegisteredModel

STABLE_ALIAS = "champion"
STABLE_STAGE = "Production"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One service whose alias or stage names another version than the one that serves."""

    service: str
    model: str
    says: str
    """`alias champion` or `stage Production`."""

    version: str
    """The version that it names."""

    served: str
    """The version that serves."""


def disagreements(
    routes: Iterable[Route], releases: Mapping[str, Release], models: Iterable[RegisteredModel]
) -> list[Disagreement]:
    """Compare every served model release with its registered model.

    :param releases: by digest.
    """
    by_name = {model.name: model for model in models}
    found: list[Disagreement] = []
    for route in routes:
        release = releases.get(route.stable)
        name = str(release.manifest.get("model", "")) if release else ""
        served = str(release.manifest.get("version", "")) if release else ""
        model = by_name.get(name)
        if model is None or not served:
            continue
        named = [(f"alias {STABLE_ALIAS}", model.aliases.get(STABLE_ALIAS, ""))]
        in_stage = [one.version for one in model.versions if one.stage == STABLE_STAGE]
        if in_stage and served not in in_stage:
            named.append((f"stage {STABLE_STAGE}", in_stage[0]))
        found.extend(
            Disagreement(route.service, name, says, version, served)
            for says, version in named
            if version and version != served
        )
    return found
