"""`TrainedModel` v1alpha1, declared to be refused whole, with the reason."""

from __future__ import annotations

from ondol.formats.kserve.common import ADDRESS, GROUP, status
from ondol.formats.resource.kind import Column, Kind
from ondol.formats.resource.states import refused
from ondol.formats.resource.types import Field, Object, Quantity, Text

TRAINED_MODEL = Kind(
    group=GROUP,
    version="v1alpha1",
    kind="TrainedModel",
    plural="trainedmodels",
    short=("tm",),
    spec=Object(
        {
            "inferenceService": Field(Text(), required=True, about="The server it is loaded into."),
            "model": Field(
                Object(
                    {
                        "framework": Field(Text(), required=True),
                        "memory": Field(Quantity(), required=True),
                        "storageUri": Field(Text(), required=True),
                    }
                ),
                required=True,
            ),
        }
    ),
    status=status(address=Field(ADDRESS)),
    columns=(
        Column("URL", ".status.url"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
    state=refused(
        "it loads a model into another service's server, which KServe has given up",
        "Write one InferenceService per model: one process serves them all here anyway.",
    ),
)
