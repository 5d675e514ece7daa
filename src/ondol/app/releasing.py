"""From a name to a release of an LLM application: a digest, the one that serves, or the application as it is now."""

from __future__ import annotations

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.formats import project as projects
from ondol.records.release import Release
from ondol.serving import application_release
from ondol.store import releases, routes
from ondol.store.connection import Store


def find(store: Store, settings: Settings, name: str) -> Release:
    """Return a release by digest, the one that an application's route names, or a new one of the project's application.

    :raises NotFoundError: when there is neither a release nor an application of that name.
    """
    if name.startswith("sha256:"):
        return releases.get(store, name)
    route = routes.get(store, name)
    if route is not None and route.kind == "application":
        return releases.get(store, route.stable)
    return build(store, settings, name)


def build(store: Store, settings: Settings, name: str) -> Release:
    """Pin an application of the project as it is now.

    :raises NotFoundError: when the project has none of that name.
    """
    project = projects.load(settings.project)
    spec = project.applications.get(name)
    if spec is None:
        known = ", ".join(project.applications) or "none"
        raise errors.NotFoundError(
            f"no application {name!r}", where="ondol.yaml", way_out=f"There are: {known}.", code="NOF-166"
        )
    return application_release.build_release(store, settings, name, spec, project.llms)
