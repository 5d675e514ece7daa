"""The prompt library: push files, find commits by `name@ref`, move tags, compare, render.

A ref is `latest` (also: nothing), a tag, `vN` (the N-th commit), the file's own version, or the first digits of a
commit. LangSmith's `name:ref` is read the same way.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ondol.base import errors, hashing
from ondol.formats import prompt as prompt_format
from ondol.formats.prompt import Prompt
from ondol.prompts import rendering
from ondol.records import codec
from ondol.store import prompts as rows
from ondol.store.connection import Store

_NUMBER = re.compile(r"v([1-9]\d{0,8})")
_TAG = re.compile(r"[A-Za-z][\w.-]{0,63}")
_HASH = re.compile(r"(sha256:)?[0-9a-f]{6,64}")
_MAX_BYTES = 1 << 20  # a prompt file larger than this is a mistake


@dataclass(frozen=True, slots=True)
class Commit:
    """One version of one prompt."""

    name: str
    number: int
    digest: str
    parent: str
    message: str
    content: str
    version: str
    source: str
    created_at: float
    tags: tuple[str, ...]
    prompt: Prompt
    text: str
    """The file as it was pushed."""

    new: bool = False
    """True when the push that returned this made it."""

    @property
    def address(self) -> str:
        """`name@digest`: what a release pins and a trace names."""
        return f"{self.name}@{self.digest}"


def split_ref(ref: str) -> tuple[str, str]:
    """Split `name@ref` or `name:ref`; no ref means `latest`."""
    for separator in ("@", ":"):
        name, found, rest = ref.partition(separator)
        if found:
            return name, rest or "latest"
    return ref, "latest"


def files(path: Path) -> list[Path]:
    """Return the prompt files at or below a path.

    :raises NotFoundError: when there are none.
    """
    found = [path] if path.is_file() else sorted((*path.rglob("*.yaml"), *path.rglob("*.yml")))
    if not found:
        raise errors.NotFoundError(
            f"no prompt files in {str(path)!r}", way_out="A prompt is a .yaml file with name and template.",
            code="NOF-052",
        )  # fmt: skip
    return found


def read(path: Path) -> tuple[Prompt, str]:
    """Read one prompt file and return it with its text.

    :raises InputError: when it cannot be read, is not UTF-8, too large, or not a prompt.
    """
    try:
        data = path.read_bytes()
        if len(data) > _MAX_BYTES:
            raise errors.InputError(f"a prompt of {len(data)} bytes", where=str(path), code="INP-050")
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise errors.InputError(f"cannot read the file: {error.strerror}", where=str(path), code="INP-050") from error
    except UnicodeDecodeError as error:
        raise errors.InputError("the file is not UTF-8 text", where=str(path), code="INP-050") from error
    return prompt_format.parse(text, str(path)), text


class Prompts:
    """The prompts of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def push(self, path: Path, message: str = "") -> Commit:
        """Push one file and return its commit; unchanged content gives the commit there is (`new` is False).

        :raises InputError: when the file is no prompt; nothing is stored then.
        """
        prompt, text = read(path)
        return self.push_prompt(prompt, text=text, message=message, source=str(path))

    def push_all(self, path: Path, message: str = "") -> list[Commit]:
        """Push a file or every prompt file below a folder; all are read before any is stored.

        :raises InputError: when one is no prompt, or two claim the same name.
        """
        loaded: dict[str, tuple[Path, Prompt, str]] = {}
        for file in files(path):
            prompt, text = read(file)
            if prompt.name in loaded:
                raise errors.InputError(
                    f"two files are called {prompt.name!r}: {loaded[prompt.name][0].name} and {file.name}",
                    where=str(file),
                    way_out="Push one of them by itself: each push of a name is its next version.",
                    code="INP-058",
                )
            loaded[prompt.name] = (file, prompt, text)
        return [
            self.push_prompt(prompt, text=text, message=message, source=str(file))
            for file, prompt, text in loaded.values()
        ]

    def push_prompt(self, prompt: Prompt, *, text: str = "", message: str = "", source: str = "") -> Commit:
        """Push a prompt that is already a record."""
        row, new = rows.put(
            self._store,
            prompt.name,
            codec.encode(prompt),
            text or prompt_format.dump(prompt),
            version=prompt.version,
            message=message,
            source=source,
        )
        return replace(self._commit(row), new=new)

    def get(self, ref: str) -> Commit:
        """Return the commit `name@ref` points at.

        :raises NotFoundError: naming what there is instead.
        """
        name, wanted = split_ref(ref)
        history = rows.history(self._store, name)
        if not history:
            known = [row.name for row in rows.heads(self._store)]
            near = difflib.get_close_matches(name, known, n=1)
            raise errors.NotFoundError(
                f"no prompt {name!r}",
                way_out=f"Did you mean {near[0]!r}?" if near else "`ondol prompt push FILE` adds one.",
                code="NOF-050",
            )
        tags = rows.tags(self._store, name)
        found = _resolve(history, tags, wanted)
        if found is None:
            refs = ", ".join(["latest", *tags, *(f"v{row.number}" for row in history[:5])])
            raise errors.NotFoundError(f"prompt {name!r} has no {wanted!r}", way_out=f"It has: {refs}.", code="NOF-051")
        return self._commit(found)

    def newest(self) -> list[Commit]:
        """Return the newest commit of every prompt, by name."""
        return [self._commit(row) for row in rows.heads(self._store)]

    def history(self, name: str) -> list[Commit]:
        """Return the commits of one prompt, newest first.

        :raises NotFoundError: when there is none.
        """
        self.get(name)
        return [self._commit(row) for row in rows.history(self._store, name)]

    def tag(self, ref: str, tag: str) -> tuple[Commit, str]:
        """Point a tag at a commit and return the commit and the digest the tag pointed at before.

        :raises InputError: for a tag that could be mistaken for another kind of ref.
        """
        if not _TAG.fullmatch(tag) or tag == "latest" or _NUMBER.fullmatch(tag) or _HASH.fullmatch(tag):
            raise errors.InputError(
                f"{tag!r} cannot be a tag",
                way_out="Use a word such as production; latest, vN and commit digits are taken.",
                code="INP-059",
            )
        commit = self.get(ref)
        previous = rows.move_tag(self._store, commit.name, tag, commit.digest)
        return self._commit_of(commit.name, commit.digest), previous

    def diff(self, left: str, right: str) -> str:
        """Return a unified diff of two commits' files; empty when they are the same."""
        one, two = self.get(left), self.get(right)
        return "".join(
            difflib.unified_diff(
                one.text.splitlines(keepends=True),
                two.text.splitlines(keepends=True),
                f"{one.name}@v{one.number} ({hashing.short(one.digest)})",
                f"{two.name}@v{two.number} ({hashing.short(two.digest)})",
            )
        )

    def _commit_of(self, name: str, digest: str) -> Commit:
        return self.get(f"{name}@{digest}")

    def _commit(self, row: rows.CommitRow) -> Commit:
        tags = tuple(tag for tag, digest in rows.tags(self._store, row.name).items() if digest == row.digest)
        return Commit(
            name=row.name,
            number=row.number,
            digest=row.digest,
            parent=row.parent,
            message=row.message,
            content=row.content,
            version=row.version,
            source=row.source,
            created_at=row.created_at,
            tags=tags,
            prompt=codec.decode(row.body, Prompt),
            text=row.text,
        )


def _resolve(history: list[rows.CommitRow], tags: dict[str, str], wanted: str) -> rows.CommitRow | None:
    """The commit a ref means; tags win over file versions, both win over digests."""
    if wanted == "latest":
        return history[0]
    if wanted in tags:
        return next(row for row in history if row.digest == tags[wanted])
    if match := _NUMBER.fullmatch(wanted):
        return next((row for row in history if row.number == int(match[1])), None)
    if by_version := [row for row in history if row.version == wanted]:
        return by_version[0]
    if _HASH.fullmatch(wanted):
        digits = wanted.removeprefix("sha256:")
        found = [row for row in history if hashing.short(row.digest, 64).startswith(digits)]
        return found[0] if len(found) == 1 else None
    return None


def render(prompt: Prompt | Commit, variables: Mapping[str, Any]) -> str:
    """Return the prompt as one text with its holes filled.

    :raises InputError: naming a missing, extra or wrongly typed variable.
    """
    return rendering.text(prompt.prompt if isinstance(prompt, Commit) else prompt, variables)


def render_messages(prompt: Prompt | Commit, variables: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the prompt as chat messages with their holes filled.

    :raises InputError: naming a missing, extra or wrongly typed variable.
    """
    return rendering.messages(prompt.prompt if isinstance(prompt, Commit) else prompt, variables)
