"""What every store promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from pathlib import Path

import pytest

from ondol.base import errors, hashing
from ondol.records.release import ApplicationManifest, ModelManifest
from ondol.records.rollout import Decision, JudgePolicy, Observation, Rollout, Route
from ondol.serving.desired import RouteTable
from ondol.store import counters, loads, migrate, observations, releases, resource_events, resources, rollouts, routes
from ondol.store.connection import Store

MANIFEST = ModelManifest(artifact=hashing.of_bytes(b"weights"), uri="models:/flights/1", version="1")


def seen(identifier: str, rollout: str = "roll-1") -> Observation:
    return Observation(identifier, 10.0, "flights", "sha256:aa", "candidate", "unit", 200, 1.5, rollout=rollout)


def test_migrations_are_applied_once_and_recorded(store: Store) -> None:
    with store.write() as tx:
        assert migrate.apply_pending(tx) == []
        assert [row["name"] for row in tx.rows("SELECT name FROM migrations ORDER BY name")] == migrate.known()


def test_a_database_of_a_newer_ondol_is_refused(store: Store) -> None:
    with store.write() as tx:
        tx.execute("INSERT INTO migrations (name, applied_at) VALUES ('m999_future', 0)")
    with pytest.raises(errors.StateError, match="newer Ondol") as caught:
        Store(store.database)
    assert caught.value.way_out


def test_the_same_content_is_the_same_release(store: Store) -> None:
    first, again = releases.put(store, "flights", MANIFEST), releases.put(store, "flights", MANIFEST)
    assert first == again
    assert releases.model_manifest(first) == MANIFEST
    assert releases.get(store, hashing.short(first.digest)) == first
    other = releases.put(store, "support", ApplicationManifest(llm="extractive"))
    assert [one.digest for one in releases.of_name(store, "support")] == [other.digest]
    assert releases.application_manifest(other).llm == "extractive"
    with pytest.raises(errors.NotFoundError):
        releases.get(store, "0123456789")


def test_a_route_is_moved_only_by_who_read_it_last(store: Store) -> None:
    route = routes.put(store, Route("flights", "model", stable="sha256:aa"))
    assert route.generation == 1
    moved = routes.put(store, Route("flights", "model", stable="sha256:bb", generation=1))
    assert routes.get(store, "flights") == moved
    for stale in (route, Route("flights", "model", stable="sha256:cc")):
        with pytest.raises(errors.ConflictError):
            routes.put(store, stale)
    routes.remove(store, "flights")
    assert routes.every(store) == []


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    def fails_half_way() -> None:
        with store.write() as tx:
            routes.put_in(tx, Route("flights", "model", stable="sha256:aa"))
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fails_half_way()
    assert routes.get(store, "flights") is None


def test_rollouts_and_decisions_are_kept(store: Store) -> None:
    rollout = Rollout("roll-1", "flights", "sha256:aa", "sha256:bb", JudgePolicy(), started_at=1.0, updated_at=1.0)
    decision = Decision("dec-1", 2.0, "flights", "roll_back", "rolled_back", "worse", {"n": 200, "e": 1234.5})
    with store.write() as tx:
        rollouts.put_in(tx, rollout)
        rollouts.decide_in(tx, decision)
    assert rollouts.get(store, "roll-1") == rollout
    assert rollouts.of_service(store, "flights", "progressing") == [rollout]
    assert rollouts.of_service(store, "other") == []
    assert rollouts.decisions(store, subject="flights") == [decision]
    assert rollouts.decision(store, "dec-1") == decision


def test_labels_are_joined_before_and_after_the_request_is_logged(store: Store) -> None:
    assert observations.label(store, {"early": "1"}) == 1
    observations.append(store, [seen("early"), seen("late"), seen("other", rollout="")])
    assert observations.label(store, {"late": "0", "early": "0"}) == 1  # the first label stays
    found = {one.id: one.label for _, one in observations.of_rollout(store, "roll-1")}
    assert found == {"early": "1", "late": "0"}
    assert [one.id for one in observations.of_service(store, "flights")] == ["early", "late", "other"]
    last = observations.of_rollout(store, "roll-1")[-1][0]
    assert observations.of_rollout(store, "roll-1", after=last) == []


def test_resources_count_generations_and_versions(store: Store) -> None:
    manifest = {"kind": "InferenceService", "metadata": {"name": "flights"}, "spec": {"a": 1}}
    first, what = resources.apply(store, manifest)
    assert (what, first.generation) == ("created", 1)
    assert resources.apply(store, manifest)[1] == "unchanged"
    changed, what = resources.apply(store, {**manifest, "spec": {"a": 2}})
    assert (what, changed.generation) == ("configured", 2)
    resources.set_status(store, "InferenceService", "default", "flights", {"url": "x"})
    after = resources.get(store, "InferenceService", "default", "flights")
    assert (after.status, after.generation) == ({"url": "x"}, 2)
    assert after.version > changed.version > first.version
    resources.delete(store, "InferenceService", "default", "flights")
    with pytest.raises(errors.NotFoundError):
        resources.delete(store, "InferenceService", "default", "flights")


def test_loads_and_facts_keep_the_last_word(store: Store) -> None:
    loads.put(store, "flights", "sha256:aa", "Loading")
    loads.put(store, "flights", "sha256:aa", "FailedToLoad", "no such file")
    assert [(one.state, one.message) for one in loads.every(store, "flights")] == [("FailedToLoad", "no such file")]
    counters.put_fact(store, "demo", {"month": 5})
    assert counters.fact(store, "demo") == {"month": 5}
    assert counters.fact(store, "nothing") is None


def test_data_version_changes_when_somebody_else_commits(store: Store) -> None:
    before = store.data_version()
    with Store(store.database) as other:
        routes.put(other, Route("flights", "model", stable="sha256:aa"))
    assert store.data_version() != before


def _count_up(database: str, times: int) -> None:
    with Store(database) as mine:
        for _ in range(times):
            with mine.write() as tx:
                counters.reserve(tx, "shared")


@pytest.mark.slow
def test_eight_writers_that_start_together_wait_for_their_turn(database: str) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_count_up, args=(database, 50)) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=240)
    assert [writer.exitcode for writer in writers] == [0] * 8
    with Store(database) as mine, mine.write() as tx:
        assert counters.reserve(tx, "shared") == 401


def test_a_postgres_that_was_away_is_connected_to_again(postgres_database: str) -> None:
    psycopg = pytest.importorskip("psycopg")

    def throw_out() -> None:
        with psycopg.connect(postgres_database, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid != pg_backend_pid()"
            )

    def write_while_it_goes(store: Store) -> None:
        with store.write() as tx:
            routes.put_in(tx, Route("lost", "model", "third"))
            throw_out()

    with Store(postgres_database) as store:
        table = RouteTable(store)
        table.start()
        throw_out()  # who was idle notices nothing
        routes.put(store, Route("m", "model", "first"))
        with pytest.raises(errors.StateError) as caught:
            write_while_it_goes(store)
        assert caught.value.code == "STA-740"
        routes.put(store, Route("n", "model", "second"))
        found: list[str] = []
        table.subscribe(lambda known: found.append(",".join(sorted(known))))
        deadline = time.monotonic() + 120
        while "m,n" not in found:  # the thread that follows goes on, too
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert [one.stable for one in table.every()] == ["first", "second"]
        table.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_connections_go_with_their_threads(store: Store) -> None:
    def read() -> None:
        with store.read() as tx:
            tx.rows("SELECT 1 AS one")

    def open_files() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    read()
    before = open_files()
    for _ in range(20):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    assert open_files() <= before + 4


def test_changes_of_resources_can_be_read_from_any_version_that_is_kept(store: Store) -> None:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "texts"}, "data": {"a": "1"}}
    first, _ = resources.apply(store, manifest)
    second, _ = resources.apply(store, {**manifest, "data": {"a": "2"}})
    resources.delete(store, "ConfigMap", "default", "texts")
    with store.read() as tx:
        events = resource_events.after(tx, first.version - 1, "ConfigMap")
        assert [one.type for one in events] == ["ADDED", "MODIFIED", "DELETED"]
        assert [(one.before or {}).get("data") for one in events] == [None, {"a": "1"}, {"a": "2"}]
        assert [one.version for one in resource_events.after(tx, second.version, "ConfigMap", "default")] == [
            resource_events.current(tx)
        ]
        assert resource_events.oldest(tx) < first.version
