"""How many processes: Knative's rules, on load that is made up."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ondol.formats import inference_service
from ondol.records.worker import Scaling
from ondol.serving.options import scaling_of
from ondol.serving.workers.scaling import Autoscaler, most_of, target_of


def run(scaler: Autoscaler, start: float, seconds: float, concurrency: float, have: int) -> tuple[float, int]:
    """Let the same load last a while; return when it ended and how many there are then."""
    now = start
    while now < start + seconds:
        now += 1.0
        scaler.record(now, 1.0, concurrency, int(concurrency * 10))
        have = scaler.wanted(now, have)
    return now, have


def test_it_follows_the_load_up_at_once_and_down_slowly_to_zero() -> None:
    scaler = Autoscaler(Scaling(least=0, most=10, target=2, window_seconds=60))
    now, have = run(scaler, 0.0, 60, 2, 1)
    assert have == 1
    now, have = run(scaler, now, 8, 12, have)
    assert have == 6, "panic: the last six seconds decide"
    now, have = run(scaler, now, 30, 2, have)
    assert have == 6, "and nothing is taken away for a window"
    now, have = run(scaler, now, 90, 2, have)
    assert have == 1
    now, have = run(scaler, now, 59, 0, have)
    assert have == 1, "somebody asked within the window"
    _, have = run(scaler, now, 10, 0, have)
    assert have == 0


def test_requests_per_second_count_when_they_are_the_metric() -> None:
    scaler = Autoscaler(Scaling(most=10, metric="rps", target=20, window_seconds=10))
    assert run(scaler, 0.0, 20, 6, 1)[1] == 3, "60 a second"


@given(
    st.builds(
        Scaling, least=st.integers(0, 3), most=st.integers(0, 5), metric=st.sampled_from(["concurrency", "rps"]),
        target=st.sampled_from([0.0, 1.0, 7.5]), limit=st.integers(0, 3), window_seconds=st.sampled_from([6.0, 60.0]),
    ),
    st.lists(st.tuples(st.floats(0, 500), st.integers(1, 40)), max_size=8),
)  # fmt: skip
def test_bounds_hold_whatever_the_load(scaling: Scaling, loads: list[tuple[float, int]]) -> None:
    scaler, now, have = Autoscaler(scaling), 0.0, max(1, scaling.least)
    assert target_of(scaling) > 0
    for concurrency, seconds in loads:
        now, have = run(scaler, now, seconds, concurrency, have)
        assert scaling.least <= have <= most_of(scaling)
        assert have >= 1 or concurrency == 0


def test_a_manifest_and_knatives_annotations_say_how() -> None:
    manifest: dict[str, Any] = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "x", "annotations": {"autoscaling.knative.dev/window": "1m30s"}},
        "spec": {
            "predictor": {
                "minReplicas": 0, "maxReplicas": 4, "scaleTarget": 5, "scaleMetric": "rps", "containerConcurrency": 2,
                "annotations": {"autoscaling.knative.dev/scale-to-zero-pod-retention-period": "10s"},
                "containers": [{"name": "kserve-container", "image": "x"}],
            }
        },
    }  # fmt: skip
    service = inference_service.typed(manifest)
    scaling = scaling_of(service, service.predictor)
    assert scaling == Scaling(0, 4, "rps", 5.0, 2, 90.0, 0.1, 10.0)
    fixed = inference_service.typed(
        {**manifest, "spec": {"predictor": {**manifest["spec"]["predictor"], "scaleMetric": "cpu"}}}
    )
    assert scaling_of(fixed, fixed.predictor).most == 1
