"""The user guide's pipeline: our message names the one fix kfp demands, and with it the text runs as it stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import shared_folder

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.pipelines import compiling, mending
from ondol.store.connection import Store


@pytest.fixture(scope="module")
def guide() -> str:
    for path in sorted(shared_folder("guide").glob("*.txt")):
        for block in path.read_text(encoding="utf-8").split("```python\n")[1:]:
            code = block.split("```")[0]
            if "dsl.importer(" in code:
                return code
    pytest.skip("the guide has no pipeline")


def test_the_missing_output_is_explained_with_its_line(guide: str, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "guide.py"
    file.write_text(guide, encoding="utf-8")
    with pytest.raises(errors.InputError) as caught:
        compiling.load(file, store)
    lines = guide.splitlines()
    start = next(number for number, line in enumerate(lines) if "dsl.importer(" in line)
    end = next(number for number in range(start, len(lines)) if lines[number].strip() == ")") + 1
    assert caught.value.where == f"{file}:{end}"
    assert "gives a task, but the argument 'input_data' needs the artifact" in caught.value.message
    assert "`input_data=dsl.importer(…).output`" in caught.value.way_out
    assert caught.value.code == "INP-011"
    assert not (tmp_path / "pipeline.yaml").exists()


def test_with_the_fix_it_runs_and_runs_again_from_what_is_kept(guide: str, home: Settings, tmp_path: Path) -> None:
    import sklearn.datasets

    (tmp_path / "guide.py").write_text(guide, encoding="utf-8")
    data = sklearn.datasets.load_iris(as_frame=True).frame
    data.to_csv(tmp_path / "iris.csv", index=False)

    def ondol(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ondol.cli.main", *arguments]
        environ = {**os.environ, "ONDOL_HOME": str(home.home)}
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environ)

    mended = ondol("check", "guide.py", "--fix")
    assert mended.returncode == 0, mended.stdout
    first = ondol("run", "guide.py", "-p", "input_data_path=iris.csv", "-p", "n_estimators=10", "--json")
    assert first.returncode == 0, first.stderr
    done = json.loads(first.stdout)
    assert (done["name"], done["state"]) == ("ml-training-pipeline", "succeeded")
    trained = next(task for task in done["tasks"] if task["name"] == "train-model")
    assert trained["outputs"]["metrics"]["metadata"]["accuracy"] > 0.9
    assert Path(trained["outputs"]["model"]["path"]).stat().st_size > 1000
    again = ondol("run", "guide.py", "-p", "input_data_path=iris.csv", "-p", "n_estimators=10")
    assert again.returncode == 0
    assert "preprocess-data: reused" in again.stderr
    assert "train-model: reused" in again.stderr
    listed = json.loads(ondol("pipeline", "list", "--json").stdout)
    assert [run["state"] for run in listed] == ["succeeded", "succeeded"]
    planned = ondol("run", "guide.py", "-p", "input_data_path=iris.csv", "-p", "n_estimators=20", "--dry-run", "--json")
    steps = {step["name"]: step for step in json.loads(planned.stdout)["steps"]}
    assert steps["preprocess-data"]["action"] == "reuse"
    assert steps["train-model"]["reason"] == "parameter 'n_estimators' changed from 10 to 20"
    assert "train-model" in ondol("pipeline", "show", "latest").stdout
    assert ondol("pipeline", "logs", "latest", "train-model").returncode == 0
    wrong = ondol("pipeline", "logs", "latest", "nothing")
    assert (wrong.returncode, "no log of step 'nothing'" in wrong.stderr) == (1, True)
    # Bad input: one message, exit code 2, no traceback.
    for arguments in (
        ["run", "guide.py", "-p", "n_estimators=many"],
        ["run", "none.py"],
        ["run", "guide.py", "-p", "x"],
    ):
        refused = ondol(*arguments)
        assert refused.returncode == 2
        assert "error[" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_second_load_does_not_import_kfp(guide: str, home: Settings, store: Store, tmp_path: Path) -> None:
    (tmp_path / "guide.py").write_text(mending.mended(guide), encoding="utf-8")
    first = compiling.load(tmp_path / "guide.py", store)
    code = (
        "import sys; from pathlib import Path; from ondol.pipelines import compiling; "
        "from ondol.store.connection import Store; "
        "found = compiling.load(Path(sys.argv[1]), Store(sys.argv[2])); "
        "print(found.digest, found.fresh, any(name.split('.')[0] == 'kfp' for name in sys.modules))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "guide.py"), home.database]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert said == [first.digest, "False", "False"]
