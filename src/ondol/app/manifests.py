"""What applied manifests ask of the data plane, read again after every commit that changed one.

Their formats are imported with the first manifest: declaring them takes longer than loading a small model.
Must not refuse: a manifest that cannot be followed is its controller's to report.
"""

from __future__ import annotations

from ondol.api.kserve.graphs import GraphDoor
from ondol.app.language_models import LanguageModels
from ondol.serving import models as models_module
from ondol.serving.models import Models
from ondol.store import components, resource_events, resources
from ondol.store.connection import Store


class Manifests:
    """Hands on what is new to those who serve it."""

    def __init__(self, store: Store, models: Models, graphs: GraphDoor, language_models: LanguageModels) -> None:
        self._store = store
        self._models = models
        self._graphs = graphs
        self._language_models = language_models
        self._newest = 0
        """Version of the newest change of a manifest that was read; 0: there was none ever."""

    def follow(self) -> None:
        """Look once; called after commits, in the thread that follows them."""
        newest = resource_events.newest(self._store)
        if newest != self._newest:
            self._newest = newest
            self._read()
        self._models.surround(components.every(self._store))

    def _read(self) -> None:
        from ondol.formats import inference_graph, inference_service

        found, protocols = {}, {}
        for resource in resources.every(self._store, inference_service.KIND):
            paths = inference_service.predictors(resource.manifest)  # which runtime serves them, the controller says
            service, _ = inference_service.read(resource.manifest, tuple(paths))
            if service is not None:
                found[service.name] = models_module.options_of(service)
                protocols[service.name] = service.protocol
        self._models.configure(found)
        graphs: dict[str, inference_graph.InferenceGraph] = {}
        for resource in resources.by_age(self._store, inference_graph.KIND):
            graph, _ = inference_graph.read(resource.manifest)
            if graph is not None and not graph.stopped:
                graphs.setdefault(graph.name, graph)
        self._graphs.configure(graphs, protocols)
        self._language_models.read_manifests()
