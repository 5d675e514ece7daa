"""From what was observed to the lines that are drawn.

Must not judge: the verdicts come from the decisions.
"""

from __future__ import annotations

from ondol.records.pipeline import PipelineRun
from ondol.records.rollout import STABLE, Rollout
from ondol.rollout import judge, losses
from ondol.store import observations
from ondol.store.connection import Store
from ondol.ui import charts
from ondol.ui.words import Words

_FIRST = 20  # a mean over fewer requests says nothing and would set the scale


def of_rollout(store: Store, rollout: Rollout, words: Words) -> list[tuple[str, str]]:
    """Return (title, SVG) of the running error rate and loss of both arms, over the requests of a rollout."""
    names = {STABLE: STABLE, **{one.name: f"candidate v{index}" for index, one in enumerate(rollout.variants)}}
    errors: dict[str, list[charts.Point]] = {name: [] for name in names.values()}
    quality: dict[str, list[charts.Point]] = {name: [] for name in names.values()}
    counts = {name: [0, 0, 0.0, 0] for name in errors}  # requests, failed, loss, scored
    for index, (_, one) in enumerate(observations.of_rollout(store, rollout.id), 1):
        arm = names.get(one.arm, STABLE)
        count = counts[arm]
        count[0] += 1
        count[1] += judge.failed(one.status)
        if count[0] >= _FIRST:
            errors[arm].append((index, count[1] / count[0]))
        loss = losses.of(one, rollout.policy)
        if loss is not None:
            count[2] += loss
            count[3] += 1
            if count[3] >= _FIRST:
                quality[arm].append((index, count[2] / count[3]))
    x_label = words("requests of the rollout")
    drawn = [
        (words("Error rate"), charts.lines(errors, label="error rate", percent=True, x_label=x_label)),
        (words("Loss of labelled requests"), charts.lines(quality, label="loss", x_label=x_label)),
    ]
    return [(title, svg) for title, svg in drawn if svg]


def of_run(run: PipelineRun) -> str:
    """Return the timeline of a pipeline run."""
    began = run.started_at or min((task.started_at for task in run.tasks if task.started_at), default=0.0)
    bars = [
        charts.Bar(
            task.name,
            task.started_at - began,
            max(task.ended_at, task.started_at) - began,
            "cached" if task.cached else task.state,
            f"/runs/{run.id}/steps/{task.name}",
        )
        for task in run.tasks
        if task.started_at
    ]
    return charts.timeline(bars, label="timeline")
