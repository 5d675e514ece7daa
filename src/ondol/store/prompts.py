"""Prompt commits: append-only, content-addressed, each with its parent; tags are the only thing that moves.

Must not interpret a prompt: the body is text.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ondol.base import errors, hashing, ids
from ondol.store.connection import Row, Store, Tx


@dataclass(frozen=True, slots=True)
class CommitRow:
    """One commit of one prompt."""

    digest: str
    """Digest of name, content, parent and message."""

    name: str
    number: int
    """1 for the first commit: `v1`."""

    parent: str
    """The commit before, empty for the first."""

    message: str
    content: str
    """Digest of the body alone: equal content has an equal digest whatever its history."""

    version: str
    """What the file calls itself, `1.0.0`."""

    source: str
    """Where it was pushed from: a file, `langsmith`."""

    body: str
    """The prompt as JSON."""

    text: str
    """The file as it was written."""

    created_at: float


@dataclass(frozen=True, slots=True)
class TagMove:
    """One move of a tag, for its history."""

    tag: str
    digest: str
    previous: str
    at: float


def _commit(row: Row) -> CommitRow:
    return CommitRow(**row)


def _latest_in(tx: Tx, name: str) -> CommitRow | None:
    row = tx.row("SELECT * FROM prompt_commits WHERE name = ? ORDER BY number DESC LIMIT 1", (name,))
    return _commit(row) if row else None


def put(
    store: Store, name: str, body: str, text: str, *, version: str, message: str, source: str
) -> tuple[CommitRow, bool]:
    """Add a commit after the newest one; the same content as the newest adds none.

    :returns: the commit, and whether it is new.
    """
    content = hashing.of_bytes(body.encode())
    with store.write() as tx:
        head = _latest_in(tx, name)
        if head and head.content == content:
            return head, False
        parent, number = (head.digest, head.number + 1) if head else ("", 1)
        digest = hashing.of_json({"name": name, "content": content, "parent": parent, "message": message})
        commit = CommitRow(
            digest, name, number, parent, message, content, version, source, body, text, round(time.time(), 3)
        )
        tx.execute(
            "INSERT INTO prompt_commits (digest, name, number, parent, message, content, version, source, body, text,"
            " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (digest, name, number, parent, message, content, version, source, body, text, commit.created_at),
        )
    return commit, True


def latest(store: Store, name: str) -> CommitRow | None:
    """Return the newest commit of a prompt, or None."""
    with store.read() as tx:
        return _latest_in(tx, name)


def history(store: Store, name: str) -> list[CommitRow]:
    """Return the commits of a prompt, newest first."""
    with store.read() as tx:
        rows = tx.rows("SELECT * FROM prompt_commits WHERE name = ? ORDER BY number DESC", (name,))
    return [_commit(row) for row in rows]


def heads(store: Store) -> list[CommitRow]:
    """Return the newest commit of every prompt, by name."""
    with store.read() as tx:
        rows = tx.rows(
            "SELECT c.* FROM prompt_commits c JOIN (SELECT name, MAX(number) AS number FROM prompt_commits"
            " GROUP BY name) h ON c.name = h.name AND c.number = h.number ORDER BY c.name"
        )
    return [_commit(row) for row in rows]


def tags(store: Store, name: str) -> dict[str, str]:
    """Return the tags of a prompt and the commits they point at."""
    with store.read() as tx:
        rows = tx.rows("SELECT tag, digest FROM prompt_tags WHERE name = ? ORDER BY tag", (name,))
    return {row["tag"]: row["digest"] for row in rows}


def move_tag(store: Store, name: str, tag: str, digest: str) -> str:
    """Point a tag at a commit of the prompt, keep the move in its history, and return where it pointed before.

    :raises NotFoundError: when the prompt has no such commit.
    """
    with store.write() as tx:
        if not tx.row("SELECT 1 AS x FROM prompt_commits WHERE name = ? AND digest = ?", (name, digest)):
            raise errors.NotFoundError(f"prompt {name!r} has no commit {digest!r}", code="NOF-051")
        row = tx.row("SELECT digest FROM prompt_tags WHERE name = ? AND tag = ?", (name, tag))
        previous = str(row["digest"]) if row else ""
        if previous == digest:
            return previous
        now = time.time()
        tx.execute(
            "INSERT INTO prompt_tags (name, tag, digest, at) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (name, tag) DO UPDATE SET digest = excluded.digest, at = excluded.at",
            (name, tag, digest, now),
        )
        tx.execute(
            "INSERT INTO prompt_tag_moves (id, name, tag, digest, previous, at) VALUES (?, ?, ?, ?, ?, ?)",
            (ids.new_id("tagmove"), name, tag, digest, previous, now),
        )
    return previous


def tag_moves(store: Store, name: str) -> list[TagMove]:
    """Return every move of every tag of a prompt, newest first."""
    with store.read() as tx:
        rows = tx.rows(
            "SELECT tag, digest, previous, at FROM prompt_tag_moves WHERE name = ? ORDER BY id DESC", (name,)
        )
    return [TagMove(**row) for row in rows]
