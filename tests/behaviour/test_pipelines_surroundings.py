"""What a step finds around it: secrets, volumes, workspaces, limits, and images that stand for something here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.behaviour import pipeline_tools as tools

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.pipelines import compiling, plan, resources, values
from ondol.records.pipeline import PipelineRun
from ondol.store.connection import Store

linux = pytest.mark.skipif(not Path("/proc/self/ns/mnt").exists(), reason="only Linux can mount for one process")


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tools.compile_samples(tmp_path_factory.mktemp("surrounded"), "surrounded")


def _said(done: PipelineRun, name: str) -> Any:
    return tools.task(done, name).parameters["Output"]


@linux
def test_secrets_come_from_the_environment_or_a_file_and_are_written_nowhere(
    samples: Path, home: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDOL_SECRET_DB_PASS_WORD", "hunter2hunter2")
    for file, text in {"secrets/db/user": "u-from-file", "configmaps/tuning/rate": "0.1"}.items():
        (home.project / file).parent.mkdir(parents=True, exist_ok=True)
        (home.project / file).write_text(text)
    parameters = {"path": "/tmp/ondol-test-config/rate"}
    done = tools.run(samples / "secrets.yaml", store, home, parameters)
    said = sorted(str(_said(done, name)) for name in ("tell", "tell-2", "tell-3", "tell-4"))
    assert said == ["hunter2hunter2 none", "ml none", "none none", "u-from-file 0.1"]
    assert any("'tolerations' has no meaning" in note for note in done.notes)
    written = [
        path for path in (home.home / "runs").rglob("*") if path.is_file() and path.name != "executor_output.json"
    ]
    assert not [path for path in written if b"hunter2hunter2" in path.read_bytes() and "parameters" not in str(path)]


def test_a_secret_that_is_not_there_is_named_with_both_ways_to_give_it(
    samples: Path, home: Settings, store: Store
) -> None:
    with pytest.raises(errors.ComponentError, match=r"secret 'db', key 'pass-word'") as caught:
        tools.run(samples / "secrets.yaml", store, home, {"path": ""})
    assert "ONDOL_SECRET_DB_PASS_WORD" in caught.value.way_out
    assert str(home.project / "secrets/db/pass-word") in caught.value.way_out


@linux
def test_a_volume_is_a_folder_that_steps_share_and_its_steps_are_not_reused(
    samples: Path, home: Settings, store: Store
) -> None:
    for _ in range(2):
        done = tools.run(samples / "volumes.yaml", store, home)
        assert _said(done, "read") == "ab"
        assert not [task.name for task in done.tasks if task.cached]
    assert list((home.home / "volumes").iterdir()) == []  # DeletePVC
    assert not Path("/tmp/ondol-test-volume/note.txt").exists()  # mounted for the steps only


def test_a_workspace_is_a_folder_of_the_run_and_its_steps_are_not_reused(
    samples: Path, home: Settings, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_text("a,b")
    done = tools.run(samples / "workspace.yaml", store, home, {"path": str(tmp_path / "table.csv")})
    assert _said(done, "look") == "kept a,bTrue"
    assert _said(done, "append-2") == 2 * _said(done, "append")


@linux
def test_a_step_over_its_memory_limit_is_stopped_and_says_so(samples: Path, home: Settings, store: Store) -> None:
    assert _said(tools.run(samples / "memory.yaml", store, home, {"megabytes": 1}), "hog") == 1_000_000
    with pytest.raises(errors.ComponentError, match="more than its memory limit of 300000000 bytes"):
        tools.run(samples / "memory.yaml", store, home, {"megabytes": 600})


@linux
def test_a_step_over_its_deadline_is_stopped_with_everything_it_started(
    samples: Path, home: Settings, store: Store, tmp_path: Path
) -> None:
    text, note, started = (samples / "deadline.yaml").read_text(), tmp_path / "pid", ""
    for limit in (1, 5, 25, 125):  # on a slow machine the first may come before the step has started anything
        (tmp_path / "limited.yaml").write_text(
            text.replace("activeDeadlineSeconds: '1'", f"activeDeadlineSeconds: '{limit}'")
        )
        with pytest.raises(errors.ComponentError, match=f"longer than its deadline of {limit} s"):
            tools.run(tmp_path / "limited.yaml", store, home, {"seconds": 600, "note": str(note)})
        if started := note.read_text() if note.exists() else "":
            break
    tools.wait_until(lambda: not tools.alive(int(started)))


def test_a_request_for_processors_is_a_weight(samples: Path, home: Settings, store: Store, tmp_path: Path) -> None:
    for slots, patience, together in ((2, 1.0, False), (4, 120.0, True)):
        files = {name: str(tmp_path / f"{name} of {slots}") for name in ("left", "right")}
        done = tools.run(samples / "weights.yaml", store, home, {**files, "patience": patience}, slots=slots)
        # One that came second sees the first, which may then have ended without having seen it: one of them is enough.
        assert any(_said(done, name) for name in ("meet", "meet-2")) is together


@pytest.mark.parametrize(
    ("text", "number"), [("500m", 0.5), ("2", 2), ("256Mi", 256 * 2**20), ("1.5G", 1.5e9), ("1e3", 1000), ("5k", 5000)]
)
def test_quantities(text: str, number: float) -> None:
    assert resources.quantity(text, "x") == number


@pytest.mark.parametrize("text", ["", "much", "1 2", "-1", "1Zi"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(errors.InputError, match="is no quantity"):
        resources.quantity(text, "x")


class TestImages:
    RULE = "name: shop\nimages:\n  tools/shout:*: python\n"

    def test_a_container_whose_image_means_something_here_runs_its_command(
        self, samples: Path, home: Settings, store: Store
    ) -> None:
        (home.project / "ondol.yaml").write_text(self.RULE)
        done = tools.run(samples / "images.yaml", store, home, {"word": "it's"})
        out = home.home / "runs" / done.id / "shout" / "attempt-1"
        assert tools.task(done, "shout").parameters["said"] == f"{out}/copy <it's> 3 no note"
        assert str(tools.task(done, "shout-2").parameters["said"]).endswith("<it's> 4 --note n")
        assert _said(done, "tell-dataset") == "<it's>"
        again = tools.run(samples / "images.yaml", store, home, {"word": "it's"})
        assert all(task.cached for task in again.tasks)

    def test_a_local_command_takes_the_place_of_an_entrypoint_and_its_content_counts(
        self, samples: Path, home: Settings, store: Store
    ) -> None:
        (home.project / "ondol.yaml").write_text("name: shop\nimages:\n  tools/shout:1: {command: [./mine.sh]}\n")
        script = home.project / "mine.sh"
        script.write_text('#!/bin/sh\nshift 3; printf mine > "$1"; printf x > "$2"\n')
        script.chmod(0o755)
        done = tools.run(samples / "images.yaml", store, home, {"word": "w"})
        assert tools.task(done, "shout").parameters["said"] == "mine"
        script.write_text(script.read_text().replace("mine", "other"))
        again = tools.run(samples / "images.yaml", store, home, {"word": "w"})
        assert tools.task(again, "shout").parameters["said"] == "other"

    def test_without_a_rule_nothing_runs(self, samples: Path, home: Settings, store: Store) -> None:
        with pytest.raises(errors.UnsupportedError, match="image 'tools/shout:1' has no meaning") as caught:
            tools.run(samples / "images.yaml", store, home, {"word": "w"})
        assert caught.value.where.endswith("images.yaml: deploymentSpec.executors.exec-shout.container")


def test_a_cache_key_of_the_users_own_decides(samples: Path, home: Settings, store: Store) -> None:
    tools.run(samples / "with_key.yaml", store, home, {"number": 1})
    done = tools.run(samples / "with_key.yaml", store, home, {"number": 2})
    assert tools.task(done, "pinned").cached
    assert _said(done, "pinned") == 1


def test_a_pipeline_may_take_artifacts(samples: Path, home: Settings, store: Store, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a b c")
    assert tools.run(samples / "given.yaml", store, home, {"table": str(tmp_path / "table.csv")}).outputs == {
        "Output": 3
    }
    with pytest.raises(errors.InputError, match="needs the artifact 'table'"):
        tools.run(samples / "given.yaml", store, home)


def test_a_literal_allows_only_its_values(samples: Path, store: Store, tmp_path: Path) -> None:
    text = (
        (samples / "memory.yaml")
        .read_text()
        .replace(
            "      limit:\n        defaultValue: 300M\n",
            "      limit:\n        literals: [300M, 400M]\n        defaultValue: 300M\n",
        )
    )
    (tmp_path / "literal.yaml").write_text(text)
    pipeline = compiling.load(tmp_path / "literal.yaml", store).pipeline
    assert values.arguments(pipeline, {"megabytes": 1, "limit": "400M"})["limit"] == "400M"
    with pytest.raises(errors.InputError, match="'1M' is not one of the values"):
        values.arguments(pipeline, {"megabytes": 1, "limit": "1M"})


class TestImports:
    @pytest.fixture
    def site(self, tmp_path: Path) -> Iterator[tuple[str, Path]]:
        folder = tmp_path / "site"
        folder.mkdir()

        class Quiet(SimpleHTTPRequestHandler):
            def __init__(self, *arguments: object) -> None:
                super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        server.server_close()
        thread.join()

    def test_content_at_an_address_decides_not_the_address(
        self, samples: Path, home: Settings, store: Store, site: tuple[str, Path]
    ) -> None:
        address, folder = site
        for text, rows in (("a b", 2), ("a b c", 3)):
            (folder / "table.csv").write_text(text)
            done = tools.run(samples / "given.yaml", store, home, {"table": f"{address}/table.csv"})
            assert done.outputs == {"Output": rows}
        again = tools.run(samples / "given.yaml", store, home, {"table": f"{address}/table.csv"})
        assert all(task.cached for task in again.tasks)
        with pytest.raises(errors.InputError, match="nothing to import"):
            tools.run(samples / "given.yaml", store, home, {"table": f"{address}/none.csv"})

    @pytest.mark.parametrize(
        ("address", "said"),
        [
            ("oci://registry/model:1", "is an image registry"),
            ("models:/flights/1", "needs MLflow"),
            ("wrong-scheme://x", "cannot be read"),
        ],
    )
    def test_an_address_that_means_nothing_here(
        self, samples: Path, home: Settings, store: Store, address: str, said: str
    ) -> None:
        with pytest.raises(errors.OndolError, match=said):
            tools.run(samples / "given.yaml", store, home, {"table": address})


def test_a_plan_makes_no_volume(samples: Path, home: Settings, store: Store) -> None:
    steps = plan.plan(compiling.load(samples / "volumes.yaml", store), {}, store=store, settings=home)
    assert {step.action for step in steps} == {"run"}
    assert not (home.home / "volumes").exists()


@pytest.mark.slow
def test_an_import_from_s3(samples: Path, home: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="tables")
    client.put_object(Bucket="tables", Key="may/table.csv", Body=b"a b c")
    done = tools.run(samples / "given.yaml", store, home, {"table": "s3://tables/may/table.csv"})
    assert done.outputs == {"Output": 3}
    client.close()
    server.stop()
