"""A run as people see it: its page, previews of artifacts, logs that go on, and a step in the debugger."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.behaviour import pipeline_tools as tools

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.pipelines import drawing, mending, page, previews, runner
from ondol.records.pipeline import Artifact, PipelineRun, TaskRun
from ondol.store import runs
from ondol.store.connection import Store


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tools.compile_samples(tmp_path_factory.mktemp("viewed"))


def test_the_page_of_a_run_shows_graph_time_steps_and_artifacts(samples: Path, home: Settings, store: Store) -> None:
    done = tools.run(samples / "artifacts.yaml", store, home)
    text = page.of(done, runner.kept_pipeline(done, home.home))
    for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(picture)
    assert text.count("<svg") >= 3  # graph, Gantt chart, ROC curve
    assert "make: succeeded" in text
    assert "accuracy" in text
    assert 'sandbox=""' in text  # a component's page runs no script
    assert "<script" not in text


def test_what_an_ended_run_never_came_to_is_not_pending(samples: Path, home: Settings, store: Store) -> None:
    done = tools.run(samples / "choice.yaml", store, home, {"coin": "tails", "count": 2})
    pipeline = runner.kept_pipeline(done, home.home)
    assert "pending" not in page.of(done, pipeline)
    assert "pending" in page.of(replace(done, state="running"), pipeline)


def test_names_and_errors_cannot_break_out_of_the_page(samples: Path, home: Settings, store: Store) -> None:
    done = tools.run(samples / "types.yaml", store, home, {"big": 1, "text": "x"})
    evil = '<img src=x onerror="alert(1)">'
    tasks = (*done.tasks, TaskRun(evil, "failed", error=evil, started_at=1.0, ended_at=2.0, parameters={"a": evil}))
    broken = replace(done, name=evil, error=evil, tasks=tasks, parameters={evil: evil})
    assert "<img" not in page.of(broken, runner.kept_pipeline(done, home.home))


def test_a_gantt_chart_spans_the_run_and_marks_what_was_reused() -> None:
    tasks = (
        TaskRun("one", "succeeded", started_at=100.0, ended_at=101.0),
        TaskRun("two", "running", started_at=101.0),
        TaskRun("old", "succeeded", started_at=5.0, ended_at=6.0, cached=True),
    )
    picture = drawing.gantt(PipelineRun("r", "p", "running", tasks=tasks, started_at=100.0), now=104.0)
    bars = [float(wide) for wide in re.findall(r'<rect x="[^"]+" y="\d+" width="([\d.]+)"', picture)]
    assert bars[1] == pytest.approx(3 * bars[0], rel=0.01)
    assert bars[2] == 3.0


@pytest.mark.parametrize(
    ("kind", "name", "content", "shown"),
    [
        ("Dataset", "a.csv", "x,y\n1,2\n3,4\n", "table"),
        ("Artifact", "a.txt", "words", "text"),
        ("HTML", "a", "<p>x</p>", "html"),
        ("Markdown", "a", "# x", "markdown"),
        ("Model", "a.bin", "\0\1", "nothing"),
    ],
)
def test_what_artifacts_look_like(tmp_path: Path, kind: str, name: str, content: str, shown: str) -> None:
    (tmp_path / name).write_text(content)
    preview = previews.of(Artifact("a", f"system.{kind}", "", str(tmp_path / name), metadata={"n": 1}))
    assert (preview.kind, preview.numbers) == (shown, {"n": 1})
    if shown == "table":
        assert (preview.labels, preview.rows) == (("x", "y"), (("1", "2"), ("3", "4")))
    assert previews.of(Artifact("a", f"system.{kind}", "", str(tmp_path / "gone"))).kind == "nothing"


def _ondol(home: Settings, *arguments: str) -> list[str]:
    del home
    return [sys.executable, "-m", "ondol.cli.main", *arguments]


def _environ(home: Settings) -> dict[str, str]:
    return {**os.environ, "ONDOL_HOME": str(home.home), "TERM": "dumb"}


def test_logs_are_followed_until_the_run_has_ended(samples: Path, home: Settings, tmp_path: Path) -> None:
    options = ["-p", f"path={tmp_path / 'lines'}", "-p", f"gate={tmp_path / 'gate'}"]
    running = subprocess.Popen(
        _ondol(home, "run", str(samples / "held.yaml"), *options), env=_environ(home), stderr=subprocess.DEVNULL
    )
    tools.wait_until(lambda: (tmp_path / "lines").exists() and len((tmp_path / "lines").read_text().split()) >= 2)
    follower = subprocess.Popen(
        _ondol(home, "pipeline", "logs", "latest", "-f"), env=_environ(home), stdout=subprocess.PIPE, text=True
    )
    time.sleep(0.2)
    (tmp_path / "gate").touch()
    said, _ = follower.communicate(timeout=180)
    assert running.wait(180) == 0
    assert follower.returncode == 0
    assert all(" | " in line for line in said.splitlines())


class Session:
    """A command on a terminal of its own."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, environ)
        self.said = ""

    def until(self, text: str, seconds: float = 180.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.said:
            assert time.monotonic() < deadline, self.said
            if select.select([self.terminal], [], [], 0.2)[0]:
                self.said += os.read(self.terminal, 4096).decode(errors="replace")

    def type(self, text: str) -> None:
        self.said = ""
        os.write(self.terminal, text.encode() + b"\n")

    def end(self) -> int:
        try:
            while os.read(self.terminal, 4096):
                pass
        except OSError:
            pass
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    source = tmp_path / "sums.py"
    source.write_text(
        "from kfp import dsl\n\n\n@dsl.component\ndef double(number: int) -> int:\n    return 2 * number\n\n\n"
        "@dsl.component\ndef add(number: int, other: int) -> int:\n    total = number + other\n    return total\n\n\n"
        '@dsl.pipeline(name="sums")\ndef sums(number: int = 4) -> int:\n'
        "    return add(number=double(number=number).output, other=1).output\n"
    )
    return source


@pytest.mark.slow
def test_a_step_stops_in_the_debugger_with_its_real_inputs(home: Settings, sums: Path, store: Store) -> None:
    session = Session(_ondol(home, "run", str(sums), "--debug", "add"), _environ(home))
    session.until("(Pdb)")
    assert "total = number + other" in session.said
    assert str(sums) in session.said  # the user's own file, not a copy
    session.type("p number, other")
    session.until("(8, 1)")
    os.kill(session.pid, signal.SIGINT)  # as a Ctrl-C, which is the debugger's, also does to the run
    session.type("number = 41")
    session.until("(Pdb)")
    session.type("continue")
    assert session.end() == 0
    assert runs.get(store, "latest").outputs == {"Output": 42}
    again = tools.run(sums, store, home)
    assert again.outputs == {"Output": 9}, "what was typed into the debugger must not be reused"
    assert tools.task(again, "double").cached


@pytest.mark.slow
def test_a_step_whose_debugger_is_left_fails_and_the_run_goes_on_without_it(
    home: Settings, sums: Path, store: Store
) -> None:
    session = Session(_ondol(home, "run", str(sums), "--debug", "add"), _environ(home))
    session.until("(Pdb)")
    session.type("quit")
    session.until("way out: Let it go on with `c` there")
    assert "step 'add' was left in the debugger" in session.said
    assert session.end() == 1
    left = runs.get(store, "latest")
    assert (left.state, tools.task(left, "double").state) == ("failed", "succeeded")
    finished = tools.run(Path(), store, home, resume=left.id)
    assert finished.outputs == {"Output": 9}


def test_what_cannot_be_debugged_is_refused_before_anything_runs(samples: Path, home: Settings, store: Store) -> None:
    with pytest.raises(errors.InputError, match="there is no 'none'"):
        tools.run(samples / "nested.yaml", store, home, {"number": 1}, debug="none")


GUIDE = """
from kfp import dsl

@dsl.pipeline(name="p")
def p(path: str):
    가 = 1
    train(가=가, data=dsl.importer(artifact_uri=path, artifact_class=dsl.Dataset), rows=3)
    kept = dsl.importer(artifact_uri=path, artifact_class=dsl.Dataset)
    train(data=kept)
    train(data=kept.output).after(kept)
    either = dsl.importer(artifact_uri=path, artifact_class=dsl.Dataset)
    either = 3
    train(data=either)
"""


def test_the_missing_output_is_written_where_it_is_missing_and_nowhere_else() -> None:
    mended = mending.mended(GUIDE)
    assert "data=dsl.importer(artifact_uri=path, artifact_class=dsl.Dataset).output, rows=3" in mended
    assert "train(data=kept.output)\n" in mended
    assert "train(data=kept.output).after(kept)" in mended
    assert "train(data=either)" in mended
    assert mending.mended(mended) == mended
    assert mending.mended("no python :") == "no python :"
