"""A full disk: the run fails with the reason, its state is kept, and it goes on when there is room again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.behaviour import pipeline_tools as tools

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.store import runs
from ondol.store.connection import Store

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not Path("/proc").exists(), reason="only root can mount a disk")


def _mount(place: Path, *options: str) -> bool:
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(place)], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def small(home: Settings, tmp_path: Path) -> Iterator[Settings]:
    place = tmp_path / "small"
    place.mkdir()
    if not _mount(place, "-o", "size=12m"):
        pytest.skip("this machine mounts no disk")
    yield replace(home, home=place / "home", project=place)
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_fails_the_step_and_the_run_goes_on_when_there_is_room(
    tmp_path_factory: pytest.TempPathFactory, small: Settings
) -> None:
    samples = tools.compile_samples(tmp_path_factory.mktemp("disk"), "surrounded")
    with Store(small.database) as store:
        with pytest.raises(errors.ComponentError, match="No space left on device") as caught:
            tools.run(samples / "large.yaml", store, small, {"megabytes": 9})
        assert caught.value.code == "RUN-010"
        left = runs.get(store, "latest")
        assert left.state == "failed"
        assert tools.task(left, "small-one").state == "succeeded"
        assert _mount(small.project, "-o", "remount,size=60m")
        done = tools.run(samples / "large.yaml", store, small, resume=left.id)
        assert done.state == "succeeded"
        assert tools.task(done, "small-one").attempt == 1
