"""Prompt commits and the tags that point at them."""

from __future__ import annotations

from ondol.store.connection import Tx

_STATEMENTS = (
    """CREATE TABLE prompt_commits (
        digest TEXT PRIMARY KEY, name TEXT NOT NULL, number BIGINT NOT NULL, parent TEXT NOT NULL,
        message TEXT NOT NULL, content TEXT NOT NULL, version TEXT NOT NULL, source TEXT NOT NULL,
        body TEXT NOT NULL, text TEXT NOT NULL, created_at DOUBLE PRECISION NOT NULL, UNIQUE (name, number))""",
    """CREATE TABLE prompt_tags (
        name TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL, at DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (name, tag))""",
    """CREATE TABLE prompt_tag_moves (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
        previous TEXT NOT NULL, at DOUBLE PRECISION NOT NULL)""",
)


def apply(tx: Tx) -> None:
    for statement in _STATEMENTS:
        tx.execute(statement)
