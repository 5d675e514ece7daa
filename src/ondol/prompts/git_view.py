"""What git says about a prompt file: branch, commit, whether it was changed since. Must not write to the repository."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 5.0  # git on a healthy disk answers in milliseconds


@dataclass(frozen=True, slots=True)
class GitState:
    """Where a file stands in its repository."""

    branch: str
    commit: str
    """The last commit that touched the file, short; empty when it was never committed."""

    changed: bool
    """True when the working copy differs from that commit."""

    def __str__(self) -> str:
        base = f"{self.branch} {self.commit}".strip() if self.commit else f"{self.branch} (not committed)"
        return base + (" +changes" if self.changed and self.commit else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def state(path: Path) -> GitState | None:
    """Return what git knows of a file, or None without git, a repository or the file."""
    if not path.is_file():
        return None
    branch = _git(path.parent, "rev-parse", "--abbrev-ref", "HEAD")
    if branch is None:
        return None
    commit = _git(path.parent, "log", "-1", "--format=%h", "--", path.name) or ""
    changed = bool(_git(path.parent, "status", "--porcelain", "--", path.name))
    return GitState(branch, commit, changed)
