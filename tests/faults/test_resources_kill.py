"""What the resource API acknowledged survives kill -9, and so does a watch's place; stopping waits for no watch."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tests.behaviour.kubernetes_tools import ISVC, manifest
from tests.conftest import ANY, end, new_settings, start_control


@pytest.mark.slow
def test_acknowledged_resources_survive_kill_9_and_watches_go_on(tmp_path: Path) -> None:
    settings = replace(new_settings(tmp_path), control=ANY)
    process, settings = start_control(settings)
    url = f"{settings.control.url}/k8s"
    acknowledged: dict[str, str] = {}
    with httpx.Client(base_url=url, timeout=120) as http:
        for number in range(30):
            created = http.post(ISVC, json=manifest(f"s{number}", timeout=number + 1)).json()["metadata"]
            acknowledged[created["name"]] = created["resourceVersion"]
        deleted = http.delete(f"{ISVC}/s7").json()["status"]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    assert deleted == "Success"

    process, settings = start_control(settings)
    with httpx.Client(base_url=url, timeout=120) as http:
        found = {one["metadata"]["name"]: one for one in http.get(ISVC).json()["items"]}
        assert set(found) == set(acknowledged) - {"s7"}
        assert all(found[name]["spec"]["predictor"]["timeout"] == int(name[1:]) + 1 for name in found)
        query = {"watch": "true", "resourceVersion": acknowledged["s28"], "fieldSelector": "metadata.name=s29"}
        with http.stream("GET", ISVC, params=query) as watch:
            first = json.loads(next(watch.iter_lines()))
            assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "s29")
            process.terminate()
            process.wait(180)  # however slow the machine: it is not killed
            end(process)
    assert process.returncode == -signal.SIGTERM
    assert "Traceback" not in (settings.logs / "control.log").read_text()
