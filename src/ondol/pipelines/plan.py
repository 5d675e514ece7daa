"""What a run would do, before it runs: which steps are reused, which run, and why.

Must not change anything but bring back cached files whose copies were removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ondol.base.settings import Settings
from ondol.formats.kfp_graph import Claim
from ondol.pipelines import caching
from ondol.pipelines.compiling import Compiled
from ondol.pipelines.flow import Ended, Inputs, Node
from ondol.pipelines.importing import Fetch
from ondol.pipelines.walk import Ready, Walk
from ondol.records.pipeline import TaskRun
from ondol.store import runs
from ondol.store.connection import Store


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a plan."""

    name: str
    action: str
    """`reuse`, `run`, `import` or `skip`."""

    reason: str
    run: str = ""
    """The run whose outcome is reused."""


class _Planner(Walk):
    def __init__(
        self,
        compiled: Compiled,
        parameters: dict[str, Any],
        store: Store,
        settings: Settings,
        use_cache: bool,
        registry: Fetch | None,
    ) -> None:
        super().__init__(
            compiled,
            parameters,
            run="plan",
            store=store,
            settings=settings,
            use_cache=use_cache,
            prior={},
            registry=registry,
        )
        self.steps: list[PlannedStep] = []

    def launch(self, ready: Ready) -> None:
        reason = ready.reason
        if not reason:
            last = runs.last_ingredients(self.store, step_name(self.compiled, ready.node))
            reason = caching.difference(ready.ingredients, last)
        self.steps.append(PlannedStep(ready.node.path, "run", reason))
        self.finish(ready.node, Ended("succeeded", unknown=True))

    def claim(self, node: Node, claim: Claim, inputs: Inputs) -> TaskRun | None:
        return None

    def note(self, node: Node, task: TaskRun, ready: Ready | None = None) -> None:
        if task.graph:
            return
        if task.cached:
            known = runs.cached(self.store, task.key)
            made = known[0] if known else ""
            self.steps.append(PlannedStep(node.path, "reuse", f"same code, inputs and environment as in {made}", made))
        elif task.state == "succeeded":
            self.steps.append(PlannedStep(node.path, "import", task.outputs["artifact"].path))
        elif task.state == "pending":
            self.steps.append(PlannedStep(node.path, "run", task.error))
        else:
            self.steps.append(PlannedStep(node.path, "skip", task.error))


def step_name(compiled: Compiled, node: Node) -> str:
    """Return the name under which a step's outcomes are remembered across runs."""
    return f"{compiled.pipeline.name}/{node.path}"


def plan(
    compiled: Compiled,
    parameters: dict[str, Any],
    *,
    store: Store,
    settings: Settings,
    use_cache: bool = True,
    registry: Fetch | None = None,
) -> list[PlannedStep]:
    """Return what a run with these parameters would do, step by step.

    :param registry: fetches `models:/` and `runs:/` for importers.
    :raises InputError: when something to import is not there.
    :raises UnsupportedError: when a container's image means nothing here.
    """
    planner = _Planner(compiled, parameters, store, settings, use_cache, registry)
    planner.advance()
    return planner.steps
