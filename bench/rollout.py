"""The canary judge beside Flagger's and Argo's rules, on traffic whose truth is known.

Every row is a service with a true error rate in stable and in the candidate, at some traffic, over 30 minutes with 10 %
of units in the candidate. Peers look once a minute at the candidate's error rate of that minute, as they do:

- flagger: more than 1 % errors in a minute is a bad one; rolled back at the 5th bad minute (its defaults);
- argo: the same measure with failureLimit 3, rolled back at the 4th;
- tuned: the best fixed rule of a grid (absolute, or relative to stable in the same minute) for this very row: of those
  that roll back at most 1 % of healthy runs of this traffic, the one that costs the fewest candidate requests. It is
  chosen with the truth in hand, which nobody has;
- ours: the share of α that the default policy gives to errors (0.00675 of 0.01), looked at every second.

Traffic is independent requests, or 2,000 units whose activity follows a power law, among them broken clients (2 % of
units, half of all errors) that fail whoever serves them. "hurt" counts the candidate requests served until the
rollback; a run without one counts all its requests. A peer is comparable in a row when it rolls back at most 1 % of
the healthy runs of the same traffic: a rule that always fires is quick. Healthy rows have four times the runs.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.records.rollout import JudgePolicy
from ondol.rollout import calibration, eprocess, policies

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MINUTES = 30
SHARE = 0.1
UNITS = 2000
ALLOWED = 0.01  # false rollbacks of a rule that may be compared with
HEALTHY = ((0.005, 0.005), (0.02, 0.02))
REGRESSED = ((0.005, 0.02), (0.005, 0.05), (0.005, 0.3), (0.02, 0.06))


@dataclass(frozen=True)
class Setting:
    """One row: what is true."""

    per_minute: int
    stable: float
    candidate: float
    heavy: bool

    @property
    def healthy(self) -> bool:
        return self.candidate <= self.stable


@dataclass
class Runs:
    """Simulated runs: what peers see per minute, and when ours would have acted."""

    requests: Ints  # candidate requests, (runs, minutes)
    errors: Ints  # candidate errors, (runs, minutes)
    stable_rate: Floats  # stable's error rate, (runs, minutes)
    ours: Floats  # minute at which the e-process crossed, infinite if never, (runs,)


def crossing_table(alpha: float, most: int) -> Ints:
    """Return for each number of stable units with an error how many candidate units prove harm, with one step."""
    together, alone = calibration.shares(1)
    computed = calibration.line(SHARE, calibration.threshold(SHARE, round(alpha * alone, 12)))
    computed = np.where(np.arange(len(computed)) + computed <= calibration.MOST, computed, 4 * most + 64)
    table = villes_table(-math.log(alpha * together), most)
    table[: len(computed)] = np.minimum(table[: len(computed)], computed)
    return table


def villes_table(limit: float, most: int) -> Ints:
    """Return the same for the e-value of all units there will ever be."""
    stable = np.arange(most + 1)
    low, high = np.zeros(most + 1, dtype=np.int64), np.full(most + 1, 4 * most + 64, dtype=np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        logs = eprocess.event_logs(stable, middle, SHARE)
        crossed = eprocess.mixed(logs) >= limit
        high, low = np.where(crossed, middle, high), np.where(crossed, low, middle + 1)
    return low


def first_crossing(in_candidate: NDArray[np.bool_], times: Floats, table: Ints) -> float:
    """Return when the counts of harmed units cross the line, rounded up to the next second."""
    candidate = np.cumsum(in_candidate)
    stable = np.arange(1, len(candidate) + 1) - candidate
    crossed = np.flatnonzero(candidate >= table[np.minimum(stable, len(table) - 1)])
    return math.ceil(times[crossed[0]] * 60) / 60 if len(crossed) else math.inf


class Population:
    """Units, how active they are, and how often each fails whoever serves it."""

    def __init__(self, setting: Setting, generator: np.random.Generator) -> None:
        activity = generator.pareto(1.1, UNITS) + 0.05
        self.activity = setting.per_minute * activity / activity.sum()
        broken = generator.random(UNITS) < 0.02
        self.failing = np.full(UNITS, setting.stable / 2)
        share = self.activity[broken].sum() / self.activity.sum()
        self.failing[broken] = min(setting.stable / 2 / max(share, 1e-9), 1.0)
        self.candidate = generator.random(UNITS) < SHARE
        added = setting.candidate - setting.stable
        self.failing[self.candidate] = 1 - (1 - self.failing[self.candidate]) * (1 - added)


def simulate(setting: Setting, runs: int, table: Ints, seed: int) -> Runs:
    """Simulate runs of one setting."""
    generator = np.random.default_rng(seed)
    shape = (runs, MINUTES)
    errors, others = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    ours, loads = np.full(runs, math.inf), np.zeros((runs, 2))
    for run in range(runs):
        if setting.heavy:
            people = Population(setting, generator)
            hazards, arms = people.activity * people.failing, people.candidate
            n = generator.poisson(hazards.sum() * MINUTES)
            unit = np.searchsorted(np.cumsum(hazards) / hazards.sum(), generator.random(n))
            unit = np.minimum(unit, UNITS - 1)
            times, in_candidate = np.sort(generator.random(n)) * MINUTES, arms[unit]
            _, first = np.unique(unit, return_index=True)
            first.sort()
            loads[run] = people.activity[arms].sum(), people.activity[~arms].sum()
        else:
            loads[run] = setting.per_minute * SHARE, setting.per_minute * (1 - SHARE)
            hazard = loads[run] * (setting.candidate, setting.stable)
            n = generator.poisson(hazard.sum() * MINUTES)
            times = np.sort(generator.random(n)) * MINUTES
            in_candidate = generator.random(n) < hazard[0] / hazard.sum()
            first = np.arange(n)
        minute = times.astype(np.int64)
        errors[run] = np.bincount(minute[in_candidate], minlength=MINUTES)
        others[run] = np.bincount(minute[~in_candidate], minlength=MINUTES)
        ours[run] = first_crossing(in_candidate[first], times[first], table)
    requests = errors + generator.poisson(np.maximum(loads[:, :1] - errors.mean(axis=1, keepdims=True), 0), shape)
    stable = others + generator.poisson(np.maximum(loads[:, 1:] - others.mean(axis=1, keepdims=True), 0), shape)
    return Runs(requests, errors, others / np.maximum(stable, 1), ours)


def threshold_rule(runs: Runs, limit: float, bad_minutes: int, relative: bool) -> Floats:
    """Return the minute after which a fixed rule rolls back, infinite if never, shape (runs,)."""
    rate = runs.errors / np.maximum(runs.requests, 1)
    bad = (rate - runs.stable_rate if relative else rate) > limit
    reached = np.cumsum(bad, axis=1) >= bad_minutes
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, math.inf)


def spent(runs: Runs, at: Floats) -> Floats:
    """Return how many candidate requests were served until then, shape (runs,)."""
    sums = np.concatenate([np.zeros((len(at), 1)), np.cumsum(runs.requests, axis=1)], axis=1)
    at = np.minimum(at, MINUTES)
    whole = np.floor(at).astype(np.int64)
    rest = at - whole
    following = np.minimum(whole + 1, MINUTES)
    rows = np.arange(len(at))
    found = sums[rows, whole] + rest * (sums[rows, following] - sums[rows, whole])
    return np.asarray(np.maximum(found, 1.0), dtype=np.float64)


def tuned_rule(runs: Runs, healthy: Runs) -> tuple[Floats, float]:
    """Return what the best rule of the grid does in these runs (nothing when none is allowed), and its false alarms."""
    best, fewest, alarms = np.full(len(runs.ours), math.inf), math.inf, 0.0
    for relative in (False, True):
        for limit in (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5):
            for bad_minutes in (1, 2, 3, 4, 5, 7, 10):
                wrong = float(np.isfinite(threshold_rule(healthy, limit, bad_minutes, relative)).mean())
                if wrong > ALLOWED:
                    continue
                at = threshold_rule(runs, limit, bad_minutes, relative)
                cost = float(spent(runs, at).mean())
                if cost < fewest:
                    best, fewest, alarms = at, cost, wrong
    return best, alarms


def settings() -> Iterator[Setting]:
    for heavy in (False, True):
        for per_minute in (60, 600, 6000):
            for stable, candidate in (*HEALTHY, *REGRESSED):
                yield Setting(per_minute, stable, candidate, heavy)


def measure(setting: Setting, runs: int, table: Ints, seed: int) -> dict[str, Any]:
    """Return one row of the table."""
    # A rate of less than one in a hundred needs more runs to be told from one.
    here = simulate(setting, runs * (4 if setting.healthy else 1), table, seed)
    calm = Setting(setting.per_minute, setting.stable, setting.stable, setting.heavy)
    healthy = here if setting.healthy else simulate(calm, runs, table, seed + 1000)
    tuned, tuned_alarms = tuned_rule(here, healthy)
    at = {
        "flagger": threshold_rule(here, 0.01, 5, False),
        "argo": threshold_rule(here, 0.01, 4, False),
        "tuned": tuned,
        "ours": here.ours,
    }
    false_alarms = {
        "flagger": float(np.isfinite(threshold_rule(healthy, 0.01, 5, False)).mean()),
        "argo": float(np.isfinite(threshold_rule(healthy, 0.01, 4, False)).mean()),
        "tuned": tuned_alarms,
        "ours": float(np.isfinite(healthy.ours).mean()),
    }
    rules = {
        name: {
            "rolled_back": round(float(np.isfinite(when).mean()), 4),
            "median_requests": round(float(np.median(spent(here, when)))),
            "mean_requests": round(float(spent(here, when).mean())),
            "false_alarms_when_healthy": false_alarms[name],
        }
        for name, when in at.items()
    }
    return {
        "metric": "errors", "per_minute": setting.per_minute, "stable": setting.stable, "candidate": setting.candidate,
        "units": "heavy" if setting.heavy else "independent", "healthy": setting.healthy, "rules": rules,
    }  # fmt: skip


def labelled(generator: np.random.Generator, arms: NDArray[np.bool_], spoiled: float) -> tuple[Ints, Floats]:
    """Return labels and the losses of a calibrated model; the candidate says 0.9 to a share of its requests."""
    truth = generator.beta(2, 6, len(arms))
    labels = (generator.random(len(arms)) < truth).astype(np.int64)
    answers = np.where(arms & (generator.random(len(arms)) < spoiled), 0.9, truth)
    return labels, np.round((answers - labels) ** 2 * eprocess.BINS) / eprocess.BINS


def quality_row(spoiled: float, heavy: bool, runs: int, limit: float, seed: int) -> dict[str, Any]:
    """Judge a model's squared error on 6,000 labelled requests, by the first of each unit."""
    generator = np.random.default_rng(seed)
    labels, losses = labelled(generator, np.zeros(2000, dtype=bool), 0.0)  # what stable showed before
    usual = [round(float(losses[labels == label].mean()), 4) for label in (0, 1)]
    stakes = np.array([eprocess.mean_stakes(SHARE, centre, 0.0, 1) for centre in usual])
    fired, needed = 0, []
    for _ in range(runs):
        units = len(np.unique((generator.pareto(1.1, 6000) * 300).astype(np.int64))) if heavy else 6000
        arms = generator.random(units) < SHARE
        labels, losses = labelled(generator, arms, spoiled)
        y = (arms - SHARE) * (losses - np.array(usual)[labels])
        logs = np.cumsum(np.log1p(y[:, None] * stakes[labels]), axis=0)
        top = logs.max(axis=1)
        crossed = np.flatnonzero(top + np.log(np.exp(logs - top[:, None]).mean(axis=1)) >= limit)
        fired += len(crossed) > 0
        needed.append(int(arms[: crossed[0] + 1 if len(crossed) else None].sum()))
    return {
        "metric": "quality", "units": "heavy" if heavy else "independent", "spoiled": spoiled, "healthy": spoiled == 0,
        "rules": {"ours": {"rolled_back": fired / runs, "median_units": round(float(np.median(needed)))}},
    }  # fmt: skip


def ratios(row: dict[str, Any]) -> tuple[float | None, float]:
    """Return ours / the best comparable peer, and ours / the quickest peer however often it cries wolf."""
    rules, ours = row["rules"], row["rules"]["ours"]["mean_requests"]
    peers = [rules[name] for name in ("flagger", "argo", "tuned")]
    allowed = [one["mean_requests"] for one in peers if one["false_alarms_when_healthy"] <= ALLOWED]
    return (ours / min(allowed) if allowed else None), ours / min(one["mean_requests"] for one in peers)


def show(row: dict[str, Any]) -> None:
    cells = [
        f"{name} {100 * rule['rolled_back']:5.1f} % {rule.get('median_requests', rule.get('median_units')):>6}"
        for name, rule in row["rules"].items()
    ]
    truth = (
        f"{row['per_minute']:>5}/min {100 * row['stable']:4.1f} -> {100 * row['candidate']:4.1f} %"
        if row["metric"] == "errors"
        else f"quality, {100 * row['spoiled']:3.0f} % spoiled  "
    )
    print(f"{row['units']:<11} {truth} | " + " | ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="runs per row (200 for a quick look)")
    runs = parser.parse_args().runs
    began, policy = time.monotonic(), JudgePolicy()
    table = crossing_table(policies.alpha_of(policy, "error_rate"), 8000)
    limit = policies.harm_limit(policy, "quality")
    print(f"{runs} runs a row; per rule: rolled back, median candidate requests until then")
    rows = []
    for index, setting in enumerate(settings()):
        rows.append(measure(setting, runs, table, index))
        show(rows[-1])
    for index, (spoiled, heavy) in enumerate((one, heavy) for heavy in (False, True) for one in (0.0, 0.05, 0.1, 0.5)):
        rows.append(quality_row(spoiled, heavy, runs, limit, 5000 + index))
        show(rows[-1])
    busy = [row for row in rows if row["metric"] == "errors" and not row["healthy"] and row["per_minute"] >= 600]
    fair = [ratio for ratio, _ in map(ratios, busy) if ratio is not None]
    healthy = [row["rules"]["ours"]["rolled_back"] for row in rows if row["healthy"]]
    figures = {
        "runs": runs,
        "seconds": round(time.monotonic() - began, 1),
        "max_false_rollback_rate": max(healthy),
        "users_hurt_ratio_vs_best_peer": round(math.exp(sum(map(math.log, fair)) / len(fair)), 3),
        "users_hurt_ratio_worst_row": round(max(fair), 3),
        "users_hurt_ratio_vs_quickest_peer_that_may_cry_wolf": round(
            math.exp(sum(math.log(anyone) for _, anyone in map(ratios, busy)) / len(busy)), 3
        ),
        "rows": rows,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
