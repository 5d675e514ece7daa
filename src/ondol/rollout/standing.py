"""Where a rollout stands, in one shape for commands, pages and the controllers of a cluster.

Must not decide or write: it repeats the decision that was made, or asks the judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ondol.records.rollout import Decision, Rollout
from ondol.rollout import watching
from ondol.store import rollouts
from ondol.store.connection import Store

_OF_STATE = {
    "promoted": "promote", "rolled_back": "roll_back", "inconclusive": "inconclusive", "aborted": "roll_back",
    "no_difference": "no_difference", "compared": "compared",
}  # fmt: skip
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a rollout now."""

    verdict: str
    """What to do: `go_on`, `advance`, `bake`, `drop`, `promote`, `roll_back`, `inconclusive`, `no_difference` or
    `compared`."""

    reason: str
    evidence: Json
    decision: str
    """Id of the decision that ended it; empty while it is going on."""

    @property
    def harm(self) -> float:
        """The strongest evidence of harm as a share of what is asked for, 0 to 1: at 1 it is rolled back."""
        if self.verdict == "roll_back":
            return 1.0
        shares = [one["harm"] / one["harm_at"] for one in self.evidence.get("findings", []) if one["harm_at"]]
        return float(min(max([0.0, *shares]), 0.999))

    @property
    def more_requests(self) -> int | None:
        """Candidate requests still expected until all metrics are decided; None when that is not in sight."""
        wanted = [one["more_requests"] for one in self.evidence.get("findings", [])]
        return max(wanted, default=0) if None not in wanted else None


def terminal(store: Store, rollout: Rollout) -> Decision | None:
    """Return the decision that ended a rollout; None while it is going on."""
    if rollout.state == "progressing":
        return None
    about = rollouts.decisions(store, rollout.service, limit=1000)
    return next(
        (one for one in about if one.evidence.get("rollout") == rollout.id and one.verdict == rollout.state), None
    )


def of(store: Store, rollout: Rollout) -> Standing:
    """Return where a rollout stands."""
    ended = terminal(store, rollout)
    if ended is None:
        verdict = watching.verdict(store, rollout)
        return Standing(verdict.action, verdict.reason, verdict.evidence, "")
    return Standing(_OF_STATE[rollout.state], ended.reason, ended.evidence, ended.id)
