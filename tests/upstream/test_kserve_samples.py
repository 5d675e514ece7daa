"""KServe's published samples: every InferenceService is taken, or refused with the field and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondol.formats import inference_service

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "upstream" / "kserve"
TAKEN = {
    "configmap-defaults-example",
    "sklearn-from-uri",
    "sklearn-iris",
    "sklearn-iris-local",
    "sklearn-irisv2",
}
"""Services of the samples that this backend serves."""

needs_samples = pytest.mark.skipif(not FOLDER.is_dir(), reason="KServe's samples are not beside the repository")


@needs_samples
def test_every_sample_is_taken_or_refused_with_a_reason() -> None:
    taken, refused = set(), 0
    for path in sorted(FOLDER.glob("*.yaml")):
        for manifest in inference_service.documents(path.read_text(encoding="utf-8"), path.name):
            if manifest["kind"] != inference_service.KIND:
                continue
            service, problems = inference_service.read(manifest)
            if service is not None:
                taken.add(service.name)
                continue
            refused += 1
            assert problems
            for problem in problems:
                assert problem.path.startswith("spec.")
                assert problem.unsupported or problem.reason, f"{path.name}: {problem}"
                assert problem.reason != "unknown field", f"{path.name}: {problem} is a field of KServe"
    assert taken == TAKEN
    assert refused >= 20


@needs_samples
def test_the_dialect_is_the_one_of_the_runtime_that_kserve_selects() -> None:
    text = (FOLDER / "v1beta1__sklearn__v2__sklearn.yaml").read_text(encoding="utf-8")
    (manifest,) = inference_service.documents(text)
    assert inference_service.typed(manifest).protocol == "v2"
