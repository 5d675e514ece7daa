"""What a checker is given and what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

from ondol.base import errors

Severity = Literal["error", "note"]


class SourceFile:
    """A file that may be of some kind, read once.

    :param named: whether it was named by the user, and not found in a folder.
    """

    def __init__(self, path: Path, named: bool = False) -> None:
        self.path = path
        self.named = named

    @classmethod
    def of_text(cls, text: str) -> SourceFile:
        """Return what came on standard input, called `-`."""
        made = cls(Path("-"), named=True)
        made.text = text
        return made

    @cached_property
    def text(self) -> str:
        """The file's text.

        :raises InputError: when it cannot be read as UTF-8.
        """
        try:
            return self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise errors.InputError(f"cannot read the file: {error}", where=str(self.path), code="INP-012") from error

    @cached_property
    def keys(self) -> frozenset[str]:
        """Keys at the left margin of a YAML or JSON file: enough to tell kinds of files apart without parsing."""
        if self.path.suffix == ".json":
            return frozenset(re.findall(r'"(\w+)"\s*:', self.text[:2000]))
        return frozenset(re.findall(r'^"?(\w+)"?\s*:(?=\s|$)', self.text, re.MULTILINE))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is to be said of a file."""

    file: str
    line: int
    """0: the file as a whole."""

    field: str
    """The path of the field it is about, where there is one."""

    message: str
    severity: Severity = "error"
    way_out: str = ""
    code: str = ""

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Checker(Protocol):
    """One module of `cli.checkers`; it may have `fix(file: SourceFile) -> str` as well."""

    def claims(self, file: SourceFile) -> bool:
        """Whether the file is of this kind."""

    def check(self, file: SourceFile) -> Iterator[Finding]:
        """Yield everything that is to be said; what it raises is said by the caller."""


def of_error(error: errors.OndolError, file: SourceFile) -> Finding:
    """Return an error as a finding; its line is read out of its `where`."""
    place = re.search(r":(\d+)\b", error.where.removeprefix(str(file.path)))
    name = str(file.path)
    return Finding(name, int(place[1]) if place else 0, "", error.message, "error", error.way_out, error.code)
