"""What both acts share: the project's folder, the open store, who watches, and what happened so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ondol.base.progress import Progress
from ondol.base.settings import Settings
from ondol.loop.context import Context
from ondol.loop.saying import said
from ondol.records.evaluation import GateResult
from ondol.records.project import Project
from ondol.records.rollout import Decision
from ondol.store import counters
from ondol.store.connection import Store


class Teller(Progress, Protocol):
    """A progress that can also say a line between stages."""

    def say(self, text: str = "") -> None: ...


@dataclass(frozen=True, slots=True)
class Happened:
    """One line of the table at the end."""

    act: str
    what: str
    verdict: str
    why: str
    on_record: bool = False
    """It happened in an earlier run of the demo."""


@dataclass(slots=True)
class Stage:
    """Where an act plays."""

    settings: Settings
    project: Project
    store: Store
    context: Context
    teller: Teller
    happened: list[Happened] = field(default_factory=list)

    def tell(self, act: str, what: str, verdict: str, why: str, on_record: bool = False) -> None:
        """Add a line to the table at the end."""
        self.happened.append(Happened(act, what, verdict, why, on_record))

    def recorded(self, key: str) -> Any:
        """Return what an earlier run left under a key, or None."""
        return counters.fact(self.store, f"demo/{key}")

    def record(self, key: str, value: Any) -> None:
        """Leave something for the next run."""
        counters.put_fact(self.store, f"demo/{key}", value)


def told(gate: GateResult) -> tuple[str, str]:
    """Return a gate's verdict and, in one line, why."""
    verdict, _, why = said(gate).partition(": ")
    return verdict, why


def brief(decision: Decision) -> str:
    """Return a decision's reason in one line; a gate's reason is shortened to what decided."""
    rules = decision.evidence.get("rules")
    if not rules:
        return decision.reason
    return told(GateResult(decision.verdict, decision.reason, tuple(rules)))[1]  # type: ignore[arg-type]


Act = Callable[[Stage], None]
