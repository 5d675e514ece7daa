"""Pipelines compiled by the real SDK run here as they do on Kubeflow, step by step."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import pytest
from tests.behaviour import pipeline_tools as tools

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.formats.kfp_container import PythonCode
from ondol.pipelines import compiling, plan, preload, runner, values
from ondol.store import runs
from ondol.store.connection import Store


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tools.compile_samples(tmp_path_factory.mktemp("samples"))


def test_parameters_arrive_with_their_exact_types(samples: Path, home: Settings, store: Store) -> None:
    big = 2**60 + 1
    done = tools.run(samples / "types.yaml", store, home, {"big": big, "text": 'it\'s "가" {{$.x}}'})
    first = tools.task(done, "describe").parameters["Output"]
    assert first["many"] == ["int", "int", "int"]
    assert first["table"] == {"n": "int"}
    assert (first["whole"], first["part"], first["yes"], first["maybe"]) == ("int", "float", "bool", None)
    assert first["text"] == 'it\'s "가" {{$.x}}'
    second = tools.task(done, "describe-2").parameters["Output"]
    assert second["whole_value"] == big
    assert second["text"] == 'it\'s "가" {{$.x}} and 3'
    assert tools.task(done, "total").parameters["Output"] == 10


def test_artifacts_keep_content_and_metadata(samples: Path, home: Settings, store: Store) -> None:
    done = tools.run(samples / "artifacts.yaml", store, home)
    made, used = tools.task(done, "make"), tools.task(done, "use")
    assert made.parameters == {"note": "noted", "ratio": 0.5, "rows": 1}
    assert used.parameters["Output"] == (
        "['a,b', 'line', 'noted', 1, 0.5, {'rows': 1}, 'none', ['weights.txt'], 0.75, None]"
    )
    scores = made.outputs["scores"]
    assert scores.type == "system.Metrics"
    assert scores.metadata["accuracy"] == 0.75
    assert math.isnan(scores.metadata["undefined"])
    assert made.outputs["curve"].metadata["confusionMatrix"]["rows"] == [{"row": [3, 1]}, {"row": [2, 4]}]
    folder = made.outputs["folder"]
    assert (Path(folder.path) / "weights.txt").read_text() == "0.5"
    assert (home.blobs / folder.digest[7:9] / folder.digest[9:] / "weights.txt").read_text() == "0.5"
    assert "printed by make" in Path(made.log_path).read_text()
    assert Path(made.log_path).is_relative_to(home.home / "runs" / done.id / "make")


@pytest.mark.parametrize(
    ("coin", "said", "kept"),
    [
        ("heads", "it was heads", "heads file"),
        ("tails", "it was tails", "tails file"),
        ("it's ' || 1==1", "neither", "no file"),
    ],
)
def test_one_branch_runs_and_its_outputs_go_on(
    samples: Path, home: Settings, store: Store, coin: str, said: str, kept: str
) -> None:
    done = tools.run(samples / "choice.yaml", store, home, {"coin": coin, "count": 2})
    assert tools.task(done, "say-6").parameters["Output"] == said
    assert done.outputs == {"Output": said}
    assert tools.task(done, "read").parameters["Output"] == kept
    ran = [task.name for task in done.tasks if task.state == "succeeded" and "condition-branches-1/" in task.name]
    assert len({name.split("/")[1] for name in ran}) == 1
    assert tools.task(done, "condition-5").state == "skipped"


def test_pipelines_in_pipelines(samples: Path, home: Settings, store: Store) -> None:
    done = tools.run(samples / "nested.yaml", store, home, {"number": 5})
    assert tools.task(done, "twice-2/increase-2").parameters["Output"] == 9
    assert tools.task(done, "twice-2").parameters["Output"] == 9


def test_loops_over_values_and_their_parts_nested_and_collected(samples: Path, home: Settings, store: Store) -> None:
    done = tools.run(samples / "loops.yaml", store, home)
    outputs = {task.name: task.parameters.get("Output") for task in done.tasks if task.state == "succeeded"}
    assert [outputs[f"for-loop-1/{number}/increase"] for number in range(3)] == [2, 3, 4]
    assert outputs["for-loop-1/2/condition-2/increase-2"] == 5
    assert "for-loop-1/1/condition-2/increase-2" not in outputs
    assert [outputs[f"for-loop-1/1/for-loop-4/{number}/add"] for number in range(2)] == [13, 23]
    assert outputs["for-loop-7/0/add-3"] == 15
    assert (outputs["total"], outputs["total-2"], outputs["join"]) == (66, 9, "file,file,file")


def test_a_loop_over_nothing_gives_empty_lists(samples: Path, home: Settings, store: Store) -> None:
    done = tools.run(samples / "loops.yaml", store, home, {"count": 0})
    assert tools.task(done, "total-2").parameters["Output"] == 0
    assert tools.task(done, "for-loop-1").state == "succeeded"


def test_independent_steps_run_at_the_same_time(samples: Path, home: Settings, store: Store, tmp_path: Path) -> None:
    given = {"left": str(tmp_path / "left"), "right": str(tmp_path / "right")}
    done = tools.run(samples / "together.yaml", store, home, given, slots=2)
    assert [task.state for task in done.tasks] == ["succeeded", "succeeded"]


def test_a_flaky_step_is_tried_again(samples: Path, home: Settings, store: Store, tmp_path: Path) -> None:
    done = tools.run(samples / "retrying.yaml", store, home, {"counter": str(tmp_path / "tries")})
    task = tools.task(done, "flaky")
    assert (task.attempt, task.parameters["Output"]) == (3, 2)
    assert "try 0" in (home.home / "runs" / done.id / "flaky" / "attempt-1" / "log.txt").read_text()


def test_environment_variables_come_from_the_file_and_from_the_caller(
    samples: Path, home: Settings, store: Store
) -> None:
    done = tools.run(samples / "variables.yaml", store, home, environ={"FROM_CALLER": "from the caller"})
    assert tools.task(done, "environment").parameters["Output"] == "in the file"
    assert tools.task(done, "environment-2").parameters["Output"] == "from the caller"


def test_steps_of_one_worker_draw_different_random_numbers(samples: Path, home: Settings, store: Store) -> None:
    done = tools.run(samples / "draws.yaml", store, home)
    first, second = (tools.task(done, name).parameters["Output"] for name in ("draw", "draw-2"))
    assert first != second


def test_only_libraries_that_survive_a_fork_are_imported_beforehand(samples: Path, store: Store) -> None:
    def modules(name: str) -> tuple[str, ...]:
        parts = compiling.load(samples / f"{name}.yaml", store).pipeline.components.values()
        return preload.modules(part.body for part in parts if isinstance(part.body, PythonCode))

    assert modules("draws") == ("numpy",) if sys.platform.startswith("linux") else ()
    assert modules("packaged") == ()
    assert modules("variables") == ()  # it looks at its environment


def test_a_failing_step_tells_the_users_own_line(home: Settings, store: Store) -> None:
    with pytest.raises(errors.ComponentError) as caught:
        tools.run(tools.FEATURES, store, home, pipeline="failing")
    lines = tools.FEATURES.read_text(encoding="utf-8").splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "return {}[value]" in text)
    assert caught.value.where == f"{tools.FEATURES}:{line}"
    assert "KeyError: 'missing key'" in caught.value.message
    assert f'File "{tools.FEATURES}", line {line}, in deeper' in caught.value.details
    assert "kfp" not in caught.value.details
    done = runs.get(store, "latest")
    states = {task.name: task.state for task in done.tasks}
    assert states == {"say": "succeeded", "fail": "failed", "say-2": "skipped", "say-3": "succeeded"}
    assert done.state == "failed"
    assert Path(tools.task(done, "fail").log_path).read_text().count("KeyError") == 1


def test_the_exit_task_runs_after_a_failure_and_knows_it(samples: Path, home: Settings, store: Store) -> None:
    with pytest.raises(errors.ComponentError):
        tools.run(samples / "exit_handler.yaml", store, home)
    said = tools.task(runs.get(store, "latest"), "report").parameters["Output"]
    assert said.startswith("FAILED exit-handler-1 step 'exit-handler-1/fail' failed: KeyError")


class TestReuse:
    def test_a_second_run_reuses_everything(self, samples: Path, home: Settings, store: Store) -> None:
        first = tools.run(samples / "chain.yaml", store, home)
        second = tools.run(samples / "chain.yaml", store, home)
        assert not any(task.cached for task in first.tasks)
        assert all(task.cached for task in second.tasks)
        assert tools.task(second, "long-chain-10").parameters == {"Output": 10}
        assert not list((home.home / "runs" / second.id).glob("worker-*.log"))  # nothing was started

    def test_the_content_of_an_import_decides_not_its_path(
        self, samples: Path, home: Settings, store: Store, tmp_path: Path
    ) -> None:
        data = tmp_path / "data.txt"
        data.write_text("one")
        parameters = {"path": f"file://{data}"}
        tools.run(samples / "imported.yaml", store, home, parameters)
        data.write_text("two")
        changed = tools.run(samples / "imported.yaml", store, home, parameters)
        assert tools.task(changed, "read").parameters["Output"] == "two"
        moved = shutil.copy(data, tmp_path / "elsewhere.txt")
        same = tools.run(samples / "imported.yaml", store, home, {"path": str(moved)})
        assert tools.task(same, "read").cached

    def test_an_integer_is_not_a_number(self, samples: Path, home: Settings, store: Store) -> None:
        tools.run(samples / "types.yaml", store, home, {"part": 2.0})
        again = tools.run(samples / "types.yaml", store, home, {"part": 2})
        assert tools.task(again, "describe").cached  # both are declared to be a float

    def test_changed_or_lost_files_of_a_reused_step_are_brought_back(
        self, samples: Path, home: Settings, store: Store
    ) -> None:
        first = tools.run(samples / "artifacts.yaml", store, home)
        made = tools.task(first, "make").outputs
        Path(made["table"].path).write_text("somebody changed this")
        shutil.rmtree(made["folder"].path)
        second = tools.run(samples / "artifacts.yaml", store, home)
        again = tools.task(second, "make")
        assert again.cached
        assert Path(again.outputs["table"].path).read_text() == "a,b\n1,2\n"
        assert (Path(again.outputs["folder"].path) / "weights.txt").read_text() == "0.5"

    def test_without_the_cache_everything_runs(self, samples: Path, home: Settings, store: Store) -> None:
        tools.run(samples / "chain.yaml", store, home)
        again = tools.run(samples / "chain.yaml", store, home, use_cache=False)
        assert not any(task.cached for task in again.tasks)

    def test_a_plan_says_what_and_why_and_changes_nothing(self, samples: Path, home: Settings, store: Store) -> None:
        compiled = compiling.load(samples / "nested.yaml", store)

        def planned(number: int, use_cache: bool = True) -> list[plan.PlannedStep]:
            given = values.arguments(compiled.pipeline, {"number": number})
            return plan.plan(compiled, given, store=store, settings=home, use_cache=use_cache)

        fresh = planned(5)
        assert [step.action for step in fresh] == ["run"] * 4
        assert fresh[0].reason == "it has not run before"
        assert runs.every(store) == []
        done = tools.run(samples / "nested.yaml", store, home, {"number": 5})
        assert [(step.action, step.run) for step in planned(5)] == [("reuse", done.id)] * 4
        other = planned(6)
        # 6 + 1 was never computed as a first step, but "6" was the input of the second.
        assert other[0].action == "reuse"
        assert planned(50)[0].reason == "parameter 'number' changed from 5 to 50"
        assert planned(50)[1].reason == "what it works on changes"
        assert planned(5, use_cache=False)[0].reason == "reuse is off for this run"


class TestRefused:
    def test_what_is_not_honoured_is_named_with_its_place(self, samples: Path, home: Settings, store: Store) -> None:
        with pytest.raises(errors.UnsupportedError, match="image 'alpine' has no meaning") as caught:
            tools.run(samples / "container.yaml", store, home)
        assert runs.every(store) == []
        assert caught.value.where.endswith("container.yaml: deploymentSpec.executors.exec-shell.container")

    def test_wrong_parameters_are_refused_before_anything_runs(
        self, samples: Path, home: Settings, store: Store
    ) -> None:
        for given, said in (
            ({"numbr": 1}, "no parameter 'numbr'"),
            ({"number": "x"}, "'x' is not an integer"),
            ({"number": True}, "True is not an integer"),
            ({"number": 1.5}, "1.5 is not an integer"),
        ):
            with pytest.raises(errors.InputError, match=said):
                tools.run(samples / "nested.yaml", store, home, given)
        with pytest.raises(errors.InputError, match="needs the parameter 'path'"):
            tools.run(samples / "imported.yaml", store, home)
        assert runs.every(store) == []

    def test_an_import_from_elsewhere_or_of_nothing(self, samples: Path, home: Settings, store: Store) -> None:
        with pytest.raises(errors.UnsupportedError, match="'oci://registry/x' is an image registry"):
            tools.run(samples / "imported.yaml", store, home, {"path": "oci://registry/x"})
        with pytest.raises(errors.InputError, match="nothing to import"):
            tools.run(samples / "imported.yaml", store, home, {"path": str(home.home / "none")})
        assert runs.every(store) == []

    def test_a_file_with_several_pipelines_needs_a_name(self, home: Settings, store: Store) -> None:
        with pytest.raises(errors.UsageError, match="pipelines: types, artifacts"):
            tools.run(tools.FEATURES, store, home)
        with pytest.raises(errors.InputError, match="no pipeline 'none'"):
            tools.run(tools.FEATURES, store, home, pipeline="none")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("def broken(:\n", "SyntaxError"),
            ("import not_there_at_all\n", "imports 'not_there_at_all'"),
            ("raise SystemExit(3)\n", "does not compile: SystemExit: 3"),
            ("import os\nos._exit(4)\n", r"exit code 4"),
            ("x = 1\n", "no @dsl.pipeline"),
        ],
    )
    def test_a_python_file_that_does_not_compile(
        self, home: Settings, store: Store, tmp_path: Path, text: str, said: str
    ) -> None:
        file = tmp_path / "broken.py"
        file.write_text(text)
        with pytest.raises(errors.InputError, match=said) as caught:
            tools.run(file, store, home)
        assert str(file) in caught.value.where

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("a.yaml", "a: [1", "not a YAML file"),
            ("a.yaml", "kind: Pod\n", "not a compiled pipeline"),
            ("a.yaml", "", "not a compiled pipeline"),
            ("a.txt", "", "not a pipeline file"),
        ],
    )
    def test_a_file_that_is_no_pipeline(self, store: Store, tmp_path: Path, name: str, text: str, said: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(errors.InputError, match=said):
            compiling.load(tmp_path / name, store)


class TestCompiling:
    def test_once_per_content_of_everything_it_read(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "parts.py").write_text(
            "from kfp import dsl\n\n@dsl.component(base_image='python:3.11')\ndef one() -> int:\n    return 1\n"
        )
        file = tmp_path / "pipeline.py"
        file.write_text(
            "import os\nfrom kfp import dsl\nfrom parts import one\n\n"
            "@dsl.pipeline(name=os.environ.get('PIPELINE_NAME', 'plain'))\ndef main():\n    one()\n"
        )
        first = compiling.load(file, store)
        again = compiling.load(file, store)
        assert (first.fresh, again.fresh) == (True, False)
        assert again.pipeline == first.pipeline
        assert list(again.origins.values()) == [(str(tmp_path / "parts.py"), 3)]
        (tmp_path / "parts.py").write_text((tmp_path / "parts.py").read_text().replace("return 1", "return 2"))
        assert compiling.load(file, store).fresh
        monkeypatch.setenv("PIPELINE_NAME", "named")
        renamed = compiling.load(file, store)
        assert (renamed.fresh, renamed.pipeline.name) == (True, "named")

    def test_a_file_may_read_back_what_it_compiles_to_a_temporary_file_and_writes_no_other(
        self, store: Store, tmp_path: Path
    ) -> None:
        (tmp_path / "own").mkdir()
        file = tmp_path / "own" / "pipeline.py"
        file.write_text(
            "import os, tempfile\nfrom kfp import compiler, components, dsl\n\n"
            "@dsl.component(base_image='python:3.11')\ndef one() -> int:\n    return 1\n\n"
            "@dsl.pipeline(name='inner')\ndef inner() -> int:\n    return one().output\n\n"
            "with tempfile.TemporaryDirectory() as folder:\n    kept = os.path.join(folder, 'inner.yaml')\n"
            "    compiler.Compiler().compile(inner, kept)\n    loaded = components.load_component_from_file(kept)\n\n"
            "@dsl.pipeline(name='outer')\ndef outer():\n    loaded()\n\n"
            f"compiler.Compiler().compile(outer, {str(tmp_path / 'own' / 'outer.yaml')!r})\n"
        )
        assert compiling.load(file, store).pipeline.name == "outer"
        assert list(file.parent.glob("*.yaml")) == []


def test_a_step_that_is_killed_leaves_no_process(samples: Path, home: Settings, store: Store, tmp_path: Path) -> None:
    with pytest.raises(errors.ComponentError, match="killed by SIGKILL"):
        tools.run(samples / "killed.yaml", store, home, {"path": str(tmp_path / "pid")})
    tools.wait_until(lambda: not tools.alive(int((tmp_path / "pid").read_text())))


def test_a_finished_run_cannot_be_resumed(samples: Path, home: Settings, store: Store) -> None:
    done = tools.run(samples / "nested.yaml", store, home)
    with pytest.raises(errors.StateError, match="nothing to resume"):
        tools.run(samples / "nested.yaml", store, home, resume=done.id)
    assert not runner.is_running(home.home, done.id)


@pytest.mark.slow
def test_packages_of_a_component_get_an_environment_of_their_own(samples: Path, home: Settings, store: Store) -> None:
    try:
        done = tools.run(samples / "packaged.yaml", store, home)
    except errors.DependencyError as error:
        pytest.skip(f"no package index: {error.message[:200]}")
    assert tools.task(done, "animal").parameters["Output"] == "6.1"
    (folder,) = (entry for entry in (home.home / "environments").iterdir() if entry.is_dir())
    built = (folder / "ready.json").stat().st_mtime_ns
    again = tools.run(samples / "packaged.yaml", store, home, use_cache=False)
    assert tools.task(again, "animal").parameters["Output"] == "6.1"
    assert (folder / "ready.json").stat().st_mtime_ns == built
    assert tools.task(tools.run(samples / "packaged.yaml", store, home), "animal").cached
