"""Releases, routes, rollouts, decisions, observed requests, applied resources."""

from __future__ import annotations

from ondol.store.connection import Tx

_STATEMENTS = (
    """CREATE TABLE releases (
        digest TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, manifest TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL)""",
    "CREATE INDEX releases_by_name ON releases (name, created_at)",
    """CREATE TABLE routes (
        service TEXT PRIMARY KEY, generation BIGINT NOT NULL, body TEXT NOT NULL)""",
    """CREATE TABLE rollouts (
        id TEXT PRIMARY KEY, service TEXT NOT NULL, state TEXT NOT NULL, body TEXT NOT NULL)""",
    "CREATE INDEX rollouts_by_service ON rollouts (service, id)",
    """CREATE TABLE decisions (
        id TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, subject TEXT NOT NULL, action TEXT NOT NULL,
        body TEXT NOT NULL)""",
    "CREATE INDEX decisions_by_subject ON decisions (subject, id)",
    """CREATE TABLE observations (
        seq BIGINT PRIMARY KEY, id TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, service TEXT NOT NULL,
        rollout TEXT NOT NULL, label TEXT NOT NULL, body TEXT NOT NULL)""",
    "CREATE INDEX observations_by_id ON observations (id)",
    "CREATE INDEX observations_by_rollout ON observations (rollout, seq)",
    "CREATE INDEX observations_by_service ON observations (service, at)",
    """CREATE TABLE labels (
        request TEXT PRIMARY KEY, label TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, seq BIGINT NOT NULL)""",
    "CREATE INDEX labels_by_seq ON labels (seq)",
    """CREATE TABLE loads (
        service TEXT NOT NULL, release TEXT NOT NULL, state TEXT NOT NULL, message TEXT NOT NULL,
        at DOUBLE PRECISION NOT NULL, PRIMARY KEY (service, release))""",
    """CREATE TABLE resources (
        kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, version BIGINT NOT NULL,
        generation BIGINT NOT NULL, manifest TEXT NOT NULL, status TEXT NOT NULL,
        PRIMARY KEY (kind, namespace, name))""",
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, body TEXT NOT NULL, at DOUBLE PRECISION NOT NULL)",
)


def apply(tx: Tx) -> None:
    for statement in _STATEMENTS:
        tx.execute(statement)
