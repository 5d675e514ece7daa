"""What was acknowledged survives kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from ondol.records.release import ModelManifest
from ondol.store import releases
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

_WRITER = """
import sys
from ondol.records.release import ModelManifest
from ondol.store import releases
from ondol.store.blobs import Blobs
from ondol.store.connection import Store
from pathlib import Path
store, blobs = Store(sys.argv[1]), Blobs(Path(sys.argv[2]))
for number in range(1_000_000):
    digest = blobs.put_bytes(f"weights {number}".encode() * 1000)
    release = releases.put(store, "flights", ModelManifest(digest, f"models:/flights/{number}"))
    print(release.digest, flush=True)  # acknowledged
"""


def test_acknowledged_releases_and_blobs_survive_kill_9(tmp_path: Path) -> None:
    database, folder = tmp_path / "ondol.db", tmp_path / "blobs"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(database), str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(50)]
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.stdout.read().splitlines()  # lines it printed before it died; the last may be cut
    writer.wait()
    writer.stdout.close()
    acknowledged += [line.strip() for line in rest if len(line.strip()) == len(acknowledged[0])]
    blobs = Blobs(folder)
    with Store(database) as store:
        for digest in acknowledged:
            manifest = releases.model_manifest(releases.get(store, digest))
            number = manifest.uri.rpartition("/")[2]
            assert blobs.get_bytes(manifest.artifact) == f"weights {number}".encode() * 1000
        assert releases.put(store, "flights", ModelManifest("sha256:aa", "x")).digest  # and it goes on
