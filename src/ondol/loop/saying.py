"""Decisions in one line, for progress and tables; the whole reasoning stays in the decision."""

from __future__ import annotations

from ondol.records.evaluation import GateResult


def said(gate: GateResult) -> str:
    """Return the verdict with what decided it: the comparison when it passed, else what stood in the way first."""
    against = [rule for rule in gate.rules if rule["verdict"] == gate.verdict != "pass"]
    if against:
        more = f" (and {len(against) - 1} more)" if len(against) > 1 else ""
        return f"{gate.verdict}: {against[0]['reason']}{more}"
    compared = [rule["reason"] for rule in gate.rules if rule["rule"] in ("champion", "baseline", "threshold")]
    return f"{gate.verdict}: {compared[0] if compared else gate.reason}"
