"""The judge: what it must catch, what it must not, and that its verdict can be computed again."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from ondol.base import errors
from ondol.records import codec
from ondol.records.rollout import Arm, JudgePolicy, Observation
from ondol.rollout import eprocess, findings, judge, panel, verdicts

ERRORS = JudgePolicy(metrics=("error_rate",))


def one(
    index: int, arm: Arm, *, status: int = 200, unit: str = "", latency: float = 10.0, prediction: str = "",
    label: str = "", weight: float = -1.0, **signals: float,
) -> Observation:  # fmt: skip
    name = f"r{index}"
    return Observation(
        name,
        1.0,
        "s",
        "d",
        arm,
        unit or name,
        status,
        latency,
        "x",
        "",
        prediction,
        label,
        weight=weight,
        signals=dict(signals),
    )


def arm_of(generator: random.Random, share: float = 0.1) -> Arm:
    return "candidate" if generator.random() < share else "stable"


def run(policy: JudgePolicy, n: int, seed: int, make: object, share: float = 0.1) -> verdicts.JudgeVerdict:
    """Feed up to `n` requests made by `make(generator, index, arm)`; stop at the first verdict as a controller does."""
    assert callable(make)
    generator, found = random.Random(seed), judge.Judge(policy)
    for index in range(n):
        found.add(make(generator, index, arm_of(generator, share)))
        if index % 100 == 99 and found.verdict(intervals=False).action != "go_on":
            break
    return found.verdict()


def failing(stable: float, candidate: float) -> object:
    def make(generator: random.Random, index: int, arm: Arm) -> Observation:
        rate = candidate if arm == "candidate" else stable
        return one(index, arm, status=500 if generator.random() < rate else 200)

    return make


def test_a_healthy_candidate_is_promoted_with_numbers() -> None:
    verdict = run(ERRORS, 60_000, 1, failing(0.005, 0.005))
    assert verdict.action == "promote"
    found = verdict.evidence["findings"][0]
    assert found["safe"] >= found["safe_at"]
    assert found["high"] < 0.02
    assert "not worse by 0.01 or more" in verdict.reason


@pytest.mark.parametrize("seed", range(20))
def test_a_noisy_service_is_not_the_candidates_fault(seed: int) -> None:
    assert run(ERRORS, 20_000, seed, failing(0.02, 0.02)).action != "roll_back"


def test_a_broken_candidate_is_rolled_back_and_the_reason_says_so() -> None:
    verdict = run(ERRORS, 60_000, 2, failing(0.005, 0.05))
    assert verdict.action == "roll_back"
    assert "errors" in verdict.reason
    assert "in the candidate" in verdict.reason


def test_catastrophe_at_low_traffic_needs_only_a_few_requests() -> None:
    found = judge.Judge(ERRORS)
    for index in range(30):
        found.add(one(index, "stable", weight=10.0))
    for index in range(30, 33):
        found.add(one(index, "candidate", status=503, weight=10.0))
    assert found.verdict().action == "roll_back"


def test_one_broken_client_in_the_candidate_decides_nothing() -> None:
    found = judge.Judge(ERRORS)
    for index in range(5000):
        found.add(one(index, "stable", unit=f"u{index % 500}"))
    for index in range(5000, 7000):
        found.add(one(index, "candidate", status=500, unit="broken"))
    verdict = found.verdict()
    assert verdict.action != "roll_back"
    assert verdict.evidence["facts"]["metrics"][0]["harm"][0]["counts"] == ((128, 0, 1),)
    by_request = judge.Judge(replace(ERRORS, evidence_by="request"))
    for index in range(5000):
        by_request.add(one(index, "stable", unit=f"u{index % 500}"))
    for index in range(5000, 5100):
        by_request.add(one(index, "candidate", status=500, unit="broken"))
    assert by_request.verdict().action in ("roll_back", "inconclusive")


def predicting(spoiled: float) -> object:
    """A calibrated model; the candidate answers a constant for a share of its requests."""

    def make(generator: random.Random, index: int, arm: Arm) -> Observation:
        truth = generator.betavariate(0.6, 1.8)
        label = int(generator.random() < truth)
        answer = 0.9 if arm == "candidate" and generator.random() < spoiled else truth
        return one(index, arm, prediction=json.dumps([answer]), label=str(label))

    return make


def test_a_worse_model_is_rolled_back_on_delayed_truth() -> None:
    verdict = run(JudgePolicy(), 30_000, 3, predicting(0.5))
    assert verdict.action == "roll_back"
    assert verdict.reason.startswith("loss")


def test_an_equal_model_is_promoted_once_it_is_known_to_be_no_worse() -> None:
    verdict = run(JudgePolicy(margin=0.03), 60_000, 4, predicting(0.0), share=0.1)
    assert verdict.action == "promote"
    assert [found["metric"] for found in verdict.evidence["findings"]] == ["error_rate", "quality"]


def test_without_labels_quality_is_never_taken_for_granted() -> None:
    verdict = run(JudgePolicy(max_requests=1000), 60_000, 5, failing(0.0, 0.0))
    assert verdict.action == "inconclusive"
    assert "quality: nothing measured yet" in verdict.reason


def test_undecided_says_how_many_more_requests_it_expects() -> None:
    verdict = run(JudgePolicy(margin=0.001, max_requests=1000), 60_000, 6, predicting(0.0))
    assert verdict.action == "inconclusive"
    quality = verdict.evidence["findings"][1]
    assert quality["more_requests"] is None or quality["more_requests"] > 1000


@pytest.mark.parametrize(("factor", "action"), [(1.0, "promote"), (3.0, "roll_back")])
def test_latency_and_cost(factor: float, action: str) -> None:
    policy = JudgePolicy(metrics=("error_rate", "latency_p95", "cost"), margin=0.02, relative_margin=0.3)

    def make(generator: random.Random, index: int, arm: Arm) -> Observation:
        slow = factor if arm == "candidate" else 1.0
        return one(
            index, arm, latency=generator.lognormvariate(2, 0.5) * slow, cost=generator.paretovariate(1.5) * slow
        )

    assert run(policy, 80_000, 7, make).action == action


def test_where_higher_is_better_the_difference_shown_is_what_the_candidate_earns_more() -> None:
    def make(generator: random.Random, index: int, arm: Arm) -> Observation:
        return one(index, arm, revenue=generator.uniform(8, 12) + (5 if arm == "candidate" else 0))

    verdict = run(JudgePolicy(metrics=("error_rate", "revenue:higher"), margin=0.1), 20_000, 7, make)
    assert verdict.action == "promote"
    finding = codec.typed(verdict.evidence["findings"][1], findings.Finding)
    low, high = finding.interval
    assert 0 < low < 5 < high
    assert finding.margin * finding.unit == pytest.approx(-1, abs=0.1)  # a tenth of ten may be lost


@pytest.mark.parametrize(("floor", "action"), [(0.0, "roll_back"), (50.0, "promote")])
def test_a_slowness_below_the_floor_is_not_slow(floor: float, action: str) -> None:
    policy = JudgePolicy(metrics=("error_rate", "latency_p95"), margin=0.02, latency_floor_ms=floor)

    def make(generator: random.Random, index: int, arm: Arm) -> Observation:
        return one(index, arm, latency=generator.uniform(1, 2) + (20 if arm == "candidate" else 0))

    assert run(policy, 20_000, 7, make).action == action


@pytest.mark.parametrize(("slower", "requests", "actions"), [(0, 80, {"go_on"}), (30, 240, {"roll_back"})])
def test_what_holds_a_request_up_counts_once_however_many_rows_it_has(
    slower: float, requests: int, actions: set[str]
) -> None:
    found = set()
    for seed in range(4):
        generator, judged = random.Random(seed), judge.Judge(JudgePolicy(metrics=("error_rate", "latency_p95")))
        for request in range(requests):
            late = generator.choice(("stable", "candidate")) if generator.random() < 0.05 else ""
            times = {arm: generator.uniform(10, 12) + 50 * (arm == late) for arm in ("stable", "candidate")}
            times["candidate"] += slower
            for row in range(100):
                arm = arm_of(generator, 0.5)
                judged.add(replace(one(request * 100 + row, arm, latency=times[arm], weight=50.0), row=row))
        found.add(judged.verdict(intervals=False).action)
    assert found == actions


def test_a_broken_split_is_reported_before_anything_is_compared() -> None:
    verdict = run(ERRORS, 20_000, 8, failing(0.01, 0.01), share=0.3)
    assert verdict.action == "inconclusive"
    assert "split is broken" in verdict.reason


@pytest.mark.parametrize("make", [failing(0.005, 0.05), failing(0.005, 0.005), predicting(0.4)])
def test_every_verdict_is_computed_again_from_its_stored_evidence(make: object) -> None:
    verdict = run(JudgePolicy(margin=0.02), 30_000, 9, make)
    stored = json.loads(codec.encode(verdict.evidence))
    again = panel.replay(stored)
    assert (again.action, again.reason) == (verdict.action, verdict.reason)
    assert codec.encode(again.evidence) == codec.encode(verdict.evidence)


def test_the_order_of_labels_and_requests_does_not_matter_to_a_rebuilt_judge() -> None:
    make = predicting(0.2)
    assert callable(make)
    generator = random.Random(10)
    rows = [make(generator, index, arm_of(generator)) for index in range(3000)]
    together, apart = judge.Judge(JudgePolicy()), judge.Judge(JudgePolicy())
    for row in rows:
        together.add(row)
        apart.add(replace(row, label=""))
    for row in rows:
        apart.add_label(row)
    assert codec.encode(together.facts()) == codec.encode(apart.facts())
    assert panel.recompute(rows, JudgePolicy()).reason == together.verdict().reason


def test_a_step_is_left_when_nothing_leans_to_harm() -> None:
    policy = replace(ERRORS, steps=(1.0, 10.0, 100.0), min_requests=50)
    verdict = run(policy, 20_000, 11, failing(0.005, 0.005), share=0.01)
    assert verdict.action == "advance"


def test_evidence_goes_on_over_steps_with_each_requests_own_weight() -> None:
    found = judge.Judge(replace(ERRORS, steps=(10.0, 50.0, 100.0)), step_times=(0.0, 5.0))
    found.add(replace(one(0, "candidate", status=500), at=0.5))  # opens the counting
    found.add(replace(one(1, "candidate", status=500), at=1.0))
    found.add(replace(one(2, "candidate", status=500), at=6.0))
    found.add(replace(one(3, "candidate", status=500), at=6.0, weight=10.0))
    weights = {block.weight: block.counts for block in found.facts().metrics[0].harm}
    assert weights == {0.1: ((128, 0, 2),), 0.5: ((128, 0, 1),)}


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", (100.0,)), ("steps", (50.0, 10.0, 100.0)), ("metrics", ()), ("alpha", 0.0), ("margin", 1.0),
     ("max_requests", 1)],
)  # fmt: skip
def test_a_policy_that_cannot_be_followed_is_refused_by_its_field(field: str, value: object) -> None:
    policy = codec.typed({**codec.plain(JudgePolicy()), field: value}, JudgePolicy)
    with pytest.raises(errors.InputError, match=field):
        judge.Judge(policy)


def test_requests_from_before_the_candidate_was_loaded_are_no_evidence() -> None:
    for weight in (0.0, -1.0):  # told by the door, or concluded from the candidate's first answer
        found = judge.Judge(ERRORS)
        for index in range(500):
            found.add(one(index, "stable", weight=weight))
        verdict = found.verdict()
        assert (verdict.action, verdict.evidence["facts"]["stable_requests"]) == ("go_on", 0)


def test_a_label_explains_most_of_a_loss() -> None:
    """Late flights are hard for every model: measured against others of their kind, far fewer requests suffice."""

    def needed(by_label: bool, seed: int) -> int:
        policy = JudgePolicy(metrics=("quality",), centre_by_label=by_label, margin=0.02)
        generator, found = random.Random(seed), judge.Judge(policy)
        for index in range(15_000):
            truth = generator.betavariate(4, 12)
            label = str(int(generator.random() < truth))
            found.add(one(index, arm_of(generator), weight=10.0, prediction=f"[{truth}]", label=label))
            if index % 500 == 499 and found.verdict(intervals=False).action == "promote":
                return index
        return 15_000

    assert 2 * sum(needed(True, seed) for seed in range(3)) < sum(needed(False, seed) for seed in range(3))


def test_feedback_about_the_answer_is_not_what_the_answer_is_measured_against() -> None:
    def make(generator: random.Random, index: int, arm: Arm) -> Observation:
        liked = generator.random() < (0.65 if arm == "candidate" else 0.8)
        return one(index, arm, weight=10.0, prediction='{"answer": "네"}', label=f'{{"score": {int(liked)}}}')

    verdict = run(JudgePolicy(metrics=("quality",)), 20_000, 13, make)
    assert verdict.action == "roll_back"
    centres = [block["centre"] for block in codec.plain(verdict.evidence["facts"])["metrics"][0]["safe"]]
    assert all(0.1 < centre < 0.4 for centre in centres)  # the usual loss, not the answer's own


def test_evidence_that_is_none_is_refused() -> None:
    with pytest.raises(errors.InputError):
        panel.replay({"facts": {"step": "first"}})


def test_e_values_average_at_most_one_under_the_null() -> None:
    """The heart of the guarantee, computed and not sampled: the expected factor of every bet is 1 under the null."""
    for weight in (0.01, 0.1, 0.5):
        for stake in eprocess.ratio_stakes(weight):
            assert weight * (1 + stake * (1 - weight)) + (1 - weight) * (1 - stake * weight) == pytest.approx(1)
        for centre, difference, sign in ((0.2, 0.0, 1), (0.2, 0.05, 1), (0.1, 0.05, -1)):
            for stake in eprocess.mean_stakes(weight, centre, difference, sign):
                factors = [
                    1 + sign * stake * ((arm - weight) * (x - centre) - weight * (1 - weight) * difference)
                    for arm in (0, 1) for x in (0, 1)
                ]  # fmt: skip
                assert min(factors) > 0
                # stable has mean 0.3, the candidate exactly `difference` more: the edge of the null
                chance = [
                    (1 - weight) * 0.7,
                    (1 - weight) * 0.3,
                    weight * (0.7 - difference),
                    weight * (0.3 + difference),
                ]
                assert sum(p * f for p, f in zip(chance, factors, strict=True)) == pytest.approx(1)


def test_the_confidence_sequence_covers_the_truth_at_every_look() -> None:
    missed = 0
    for seed in range(20):
        generator, found = random.Random(seed), judge.Judge(JudgePolicy(metrics=("quality",), steps=(30.0, 100.0)))
        make = predicting(0.3)
        assert callable(make)
        # E[(0.9 - y)²] - E[p (1 - p)] for p ~ Beta(0.6, 1.8), for the 30 % of answers that are spoiled
        truth = 0.3 * ((0.81 - 0.8 * 0.25) - (0.25 - (0.25 * 0.75 / 3.4 + 0.25**2)))
        outside = False
        for index in range(3000):
            found.add(make(generator, index, arm_of(generator, 0.3)))
            if index % 500 == 499:
                shown = findings.finding(found.facts().metrics[0], found.policy)
                outside = outside or not shown.low <= truth <= shown.high
        missed += outside
    assert missed <= 2


@pytest.mark.slow
def test_heavy_units_that_differ_in_everything_do_not_make_a_healthy_candidate_look_bad() -> None:
    """The whole judge, four metrics at once, on units with a power law of activity and habits of their own."""
    policy = JudgePolicy(metrics=("error_rate", "quality", "latency_p95", "cost"), max_requests=100_000)
    rolled_back = 0
    for seed in range(40):
        generator, found = random.Random(seed), judge.Judge(policy)
        arms: dict[str, Arm] = {}
        for index in range(4000):
            unit = f"u{int(generator.paretovariate(0.9) * 20)}"
            habits = random.Random(f"{seed} {unit}")
            broken, slow, dear, hard = (habits.random() < 0.05 for _ in range(4))
            arm = arms.setdefault(unit, arm_of(habits))
            found.add(
                one(index, arm, status=500 if broken and generator.random() < 0.8 else 200, unit=unit, weight=10.0,
                    latency=generator.lognormvariate(2 + 2 * slow, 0.3), prediction="[0.7]",
                    label=str(int(generator.random() < (0.1 if hard else 0.7))),
                    cost=generator.paretovariate(1.2) * (20 if dear else 1))
            )  # fmt: skip
            if index % 200 == 199 and found.verdict(intervals=False).action == "roll_back":
                rolled_back += 1
                break
    assert rolled_back <= 1
