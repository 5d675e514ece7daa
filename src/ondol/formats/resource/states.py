"""What the local backend does with a field: honoured, no effect, refused, or of a cluster only.

To make a refused field work, build it and replace its `not_yet(…)` by `HONOURED` in the kind's declaration: checks,
schema and the compatibility tables follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Word = Literal["honoured", "no-effect", "not-yet", "refused", "cluster"]


@dataclass(frozen=True, slots=True)
class State:
    """The state of one field, or of one value of a field."""

    word: Word
    reason: str = ""
    way_out: str = ""

    @property
    def taken(self) -> bool:
        """Whether a manifest that has the field can be applied here."""
        return self.word in ("honoured", "no-effect")

    @property
    def text(self) -> str:
        """The reason, with the way out."""
        return f"{self.reason}; {self.way_out}" if self.way_out else self.reason


HONOURED = State("honoured")


def honoured(remark: str) -> State:
    """Done as asked; the remark stands in the compatibility table."""
    return State("honoured", remark)


def no_effect(note: str) -> State:
    """Checked and kept, and it changes nothing on one machine; `ondol apply` says so."""
    return State("no-effect", note)


def not_yet(reason: str, way_out: str = "") -> State:
    """Meant to work here, and refused until it does."""
    return State("not-yet", reason, way_out)


def refused(reason: str, way_out: str = "") -> State:
    """Refused for good."""
    return State("refused", reason, way_out)


def cluster(reason: str = "it has a meaning on a cluster only") -> State:
    """Refused here; a cluster takes it."""
    return State("cluster", reason)
