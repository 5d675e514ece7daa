"""KServe's published samples: each is taken, or refused at exactly the fields of this table.

A field that starts to work changes its line here, beside its state in the declaration.
"""

from __future__ import annotations

import pytest
from tests.conftest import shared_folder

from ondol.formats import inference_service
from ondol.formats.kserve import kinds
from ondol.formats.resource.documents import parse

PREDICTOR = "spec.predictor"
REFUSED: dict[tuple[str, str], set[str]] = {
    ("autoscaling__autoscale.yaml", "flowers-sample"): {f"{PREDICTOR}.tensorflow"},
    ("autoscaling__autoscale_custom.yaml", "flowers-sample"): {f"{PREDICTOR}.tensorflow"},
    ("graph__switch.yaml", "model-switch"): {
        # `{$your-domain}` is to be filled in: as it stands, KServe's router answers 500
        *(f"spec.nodes.root.steps[{index}].serviceUrl" for index in range(3)),
    },
    (
        "llmisvc__opt-125m-cpu__llm-inference-service-facebook-opt-125m-cpu-no-scheduler.yaml",
        "facebook-opt-125m-single",
    ): {"spec.model.uri", "spec.template"},
    ("multimodelserving__sklearn__trainedmodels.yaml", "model1-sklearn"): {"kind"},
    ("multimodelserving__sklearn__trainedmodels.yaml", "model2-sklearn"): {"kind"},
    ("rollout-strategy__rollout-strategy-example.yaml", "rollout-strategy-example"): {
        f"{PREDICTOR}.deploymentStrategy",
        "spec.transformer",
        "spec.transformer.custom",  # no field of v1beta1: KServe refuses it as well
        "spec.transformer.deploymentStrategy",
    },
    ("rollout-strategy__rollout-strategy-example.yaml", "multinode-example"): {
        PREDICTOR,  # a model and a container of one's own: KServe refuses it as well
        f"{PREDICTOR}.deploymentStrategy",
    },
    ("v1beta1__advanced__probes.yaml", "flowers"): {f"{PREDICTOR}.tensorflow"},
    ("v1beta1__advanced__timeout.yaml", "flowers"): {f"{PREDICTOR}.tensorflow"},
    ("v1beta1__rollout__canary.yaml", "my-model"): {f"{PREDICTOR}.tensorflow"},
    ("v1beta1__rollout__pinned.yaml", "my-model"): {f"{PREDICTOR}.tensorflow"},
    ("v1beta1__triton__torchscript__torchscript.yaml", "torchscript-cifar"): {f"{PREDICTOR}.triton"},
}
"""(file, name) -> the paths of its problems; what is not here is taken."""


def test_every_sample_is_taken_or_refused_where_the_table_says() -> None:
    found: dict[tuple[str, str], set[str]] = {}
    taken = set()
    for path in sorted(shared_folder("upstream/kserve").glob("*.yaml")):
        for document in parse(path.read_text(encoding="utf-8"), path.name):
            name = document.manifest["metadata"]["name"]
            problems = kinds.check(document.manifest).problems
            assert all(problem.reason for problem in problems)
            if problems:
                found[path.name, name] = {problem.path for problem in problems}
            else:
                taken.add(name)
    assert found == REFUSED
    assert {"sklearn-iris", "sklearn-irisv2", "sklearn-from-uri"} <= taken


@pytest.mark.parametrize("dialect", ["v1", "v2"])
def test_the_dialect_is_the_one_of_the_runtime_that_kserve_selects(dialect: str) -> None:
    path = shared_folder("upstream/kserve") / f"v1beta1__sklearn__{dialect}__sklearn.yaml"
    (document,) = parse(path.read_text(encoding="utf-8"), path.name)
    assert inference_service.typed(document.manifest).protocol == dialect
