"""What is built from this repository: a wheel, by way of the source distribution, that works far from here.

Built offline: the build backend must be in uv's cache, where the editable install of `make` leaves it.
"""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CARRIED = {
    "examples/demo": "demo",
    "examples/assistant": "assistant",
    "examples/flights": "flights",
    "docs": "docs",
    "evals": "evals",
}
MOST_BYTES = 5_000_000
PREPARE = """
import json, sys
from pathlib import Path
import ondol
from ondol.app.demo import run
from ondol.formats import project
settings = run.prepare(Path(sys.argv[1]))
said = project.load(settings.project)
print(json.dumps([ondol.__file__, [*said.pipelines, *said.serving, said.prompts, said.guardrails, *said.evaluations,
    *(one.path for one in said.indexes.values()), *(one.output.split(":")[0] for one in said.applications.values())]]))
"""
SHOW = "from ondol.cli.main import main; main()"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="not in the repository"),
]


@dataclass(frozen=True)
class Wheel:
    """The built wheel, and itself unpacked in an otherwise empty folder."""

    file: Path
    installed: Path
    names: frozenset[str]

    def python(self, code: str, *arguments: str, cwd: Path) -> str:
        """Run Python where only the wheel's `ondol` is found, and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(self.installed), "COLUMNS": "120"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wheel]:
    folder = tmp_path_factory.mktemp("wheel")
    uv = Path(sys.executable).with_name("uv")
    made = subprocess.run(
        [str(uv), "build", "--offline", "--out-dir", str(folder), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "hatchling" in made.stderr and made.returncode:
        pytest.skip("the build backend (hatchling) is not in uv's cache")
    assert made.returncode == 0, made.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "installed")
        yield Wheel(file, folder / "installed", frozenset(archive.namelist()))


def _files(folder: Path) -> list[Path]:
    """Return a folder's files as git would have them: neither hidden ones nor bytecode."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
    ]


def test_it_carries_the_package_the_examples_and_the_documents_unchanged(wheel: Wheel) -> None:
    expected = {f"ondol/{path.relative_to(ROOT / 'src' / 'ondol')}": path for path in _files(ROOT / "src" / "ondol")}
    for folder, name in CARRIED.items():
        found = {f"ondol/templates/{name}/{path.relative_to(ROOT / folder)}": path for path in _files(ROOT / folder)}
        assert found, folder
        expected |= found
    assert not set(expected) - wheel.names
    changed = [name for name, path in expected.items() if (wheel.installed / name).read_bytes() != path.read_bytes()]
    assert not changed


def test_it_carries_nothing_else(wheel: Wheel) -> None:
    top = {name.split("/")[0] for name in wheel.names}
    assert top == {"ondol", "ondol-0.1.0.dist-info"}
    rooms = {path.name for path in (ROOT / "src" / "ondol").iterdir() if not path.name.startswith(("__pycache__", "."))}
    assert {name.split("/")[1] for name in wheel.names if name.startswith("ondol/")} == rooms
    templates = {name.split("/")[2] for name in wheel.names if name.startswith("ondol/templates/")}
    assert templates == {*CARRIED.values(), "project"}
    assert not [name for name in wheel.names if name.endswith(".pyc") or "/." in name]
    assert wheel.file.stat().st_size < MOST_BYTES


def test_its_metadata_is_what_the_project_says(wheel: Wheel) -> None:
    said = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (folder,) = wheel.installed.glob("*.dist-info")
    metadata = email.message_from_string((folder / "METADATA").read_text(encoding="utf-8"))
    needed = [one for one in metadata.get_all("Requires-Dist", []) if "extra ==" not in one]
    assert len(needed) == len(said["dependencies"])
    assert set(metadata.get_all("Provides-Extra", [])) == set(said["optional-dependencies"])
    assert metadata["Requires-Python"] == said["requires-python"]
    assert "ondol = ondol.cli.main:main" in (folder / "entry_points.txt").read_text(encoding="utf-8")


def test_the_demo_finds_its_project_in_it(wheel: Wheel, tmp_path: Path) -> None:
    origin, named = json.loads(wheel.python(PREPARE, str(tmp_path / "demo"), cwd=tmp_path))
    assert Path(origin).is_relative_to(wheel.installed)
    assert len(named) >= 7
    assert all(named), named
    missing = [name for name in named if not (tmp_path / "demo" / name).exists()]
    assert not missing
    assert (tmp_path / "demo" / "assistant" / "docs" / "ko" / "concepts.md").is_file()


def test_a_project_of_ones_own_comes_out_of_it(wheel: Wheel, tmp_path: Path) -> None:
    rows = "\n".join(
        f"{20 + row % 50},{'서울' if row % 3 else '부산'},{'yes' if row % 2 else 'no'}" for row in range(300)
    )
    (tmp_path / "my.csv").write_text(f"age,city,churn\n{rows}\n", encoding="utf-8")
    wheel.python(SHOW, "init", "mine", "--data", "my.csv", "--target", "churn", cwd=tmp_path)
    made = {path.name for path in (tmp_path / "mine").iterdir()}
    assert {"pipeline.py", "serving.yaml", "schema.yaml", "ondol.yaml", "README.md"} <= made
    assert "ondol" in wheel.python(SHOW, "--version", cwd=tmp_path)
