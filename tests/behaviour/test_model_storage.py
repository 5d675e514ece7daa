"""Where models come from: S3 with the guide's own manifests, claims, archives, several addresses, the Secret."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import joblib
import mlflow.sklearn
import pytest
from sklearn.linear_model import LogisticRegression
from tests.behaviour import serving_tools
from tests.behaviour.kubernetes_tools import GUIDE
from tests.behaviour.serving_tools import Plane
from tests.behaviour.test_inference_service import X, Y, manifest, settle, write

from ondol.backends.local import model_source, remote_files
from ondol.base import errors
from ondol.base.settings import Settings
from ondol.formats import inference_service
from ondol.formats.inference_service import Storage
from ondol.formats.resource import documents
from ondol.store import resources
from ondol.store.connection import Store

GUIDE_MLFLOW = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: mlflow-model
spec:
  predictor:
    model:
      modelFormat:
        name: mlflow
      storageUri: "s3://mlflow-artifacts/1/abc123/artifacts/model"
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3-compatible server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the server, whose address and keys are in the environment as users have them."""
    for name, value in (
        ("ENDPOINT_URL", s3),
        ("ACCESS_KEY_ID", "a"),
        ("SECRET_ACCESS_KEY", "b"),
        ("REGION", "us-east-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    client = boto3.client("s3", region_name="us-east-1")
    yield client
    client.close()


def upload(bucket: Any, name: str, folder: Path, prefix: str) -> None:
    bucket.create_bucket(Bucket=name)
    for path in folder.rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), name, f"{prefix}/{path.relative_to(folder)}")


@pytest.fixture
def plane(home: Settings, store: Store) -> Iterator[Plane]:
    with serving_tools.running(home, store) as plane:
        yield plane


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # importing MLflow warns about its own type hints
def test_the_guides_manifests_are_served_from_s3_as_they_stand(plane: Plane, bucket: Any, tmp_path: Path) -> None:
    write(tmp_path / "plain")
    upload(bucket, "my-bucket", tmp_path / "plain", "models/sklearn-model")
    model = LogisticRegression().fit(X, Y)
    mlflow.sklearn.save_model(model, tmp_path / "logged", serialization_format="cloudpickle")
    upload(bucket, "mlflow-artifacts", tmp_path / "logged", "1/abc123/artifacts/model")
    for text in (GUIDE, GUIDE_MLFLOW):
        (document,) = (one.manifest for one in documents.parse(text, "guide.yaml"))
        document["metadata"].pop("namespace", None)
        resources.apply(plane.store, document)
        name = document["metadata"]["name"]
        assert settle(plane, name)["modelStatus"]["transitionStatus"] == "UpToDate"
        assert plane.predict(name, X[:9].tolist()).json()["predictions"] == Y[:9].tolist()


def test_only_what_changed_is_fetched_again_and_a_part_is_gone_on_with(
    bucket: Any, home: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ondol.storage")

    def downloads() -> int:
        return sum(record.name == "ondol.storage" for record in caplog.records)

    bucket.create_bucket(Bucket="cached")
    for name, data in (("a.bin", b"a" * 100_000), ("deep/b.bin", b"b" * 10)):
        bucket.put_object(Bucket="cached", Key=f"model/{name}", Body=data)
    first = model_source.fetch("s3://cached/model", home, tmp_path / "into").path
    assert (first / "deep/b.bin").read_bytes() == b"b" * 10
    assert downloads() == 2
    model_source.fetch("s3://cached/model", home, tmp_path / "into")
    assert downloads() == 2, "nothing changed, nothing was downloaded"

    bucket.put_object(Bucket="cached", Key="model/deep/b.bin", Body=b"c" * 50)
    bucket.delete_object(Bucket="cached", Key="model/a.bin")
    again = model_source.fetch("s3://cached/model", home, tmp_path / "into").path
    assert (again / "deep/b.bin").read_bytes() == b"c" * 50
    assert not (again / "a.bin").exists()

    state = again.with_name("state.json")
    known = json.loads(state.read_text())
    state.write_text(json.dumps({"deep/b.bin.part": known["deep/b.bin"]}))
    (again / "deep/b.bin").rename(again / "deep/b.bin.part")
    (again / "deep/b.bin.part").write_bytes(b"c" * 20)
    model_source.fetch("s3://cached/model", home, tmp_path / "into")
    assert (again / "deep/b.bin").read_bytes() == b"c" * 50
    (again / "deep/b.bin").unlink()
    state.write_text(json.dumps({"deep/b.bin.part": known["deep/b.bin"]}))
    (again / "deep/b.bin.part").write_bytes(b"X" * 20)
    with pytest.raises(errors.UpstreamError, match="checksum"):
        model_source.fetch("s3://cached/model", home, tmp_path / "into")


def test_the_storage_secret_names_bucket_and_server(
    s3: str, bucket: Any, home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.create_bucket(Bucket="example-models")
    bucket.put_object(Bucket="example-models", Key="sklearn/model.joblib", Body=b"x")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    storage = Storage("localMinIO", "sklearn", {"bucket": "example-models"})
    with pytest.raises(errors.InputError, match="localMinIO") as unknown:
        model_source.of_storage(storage, home, tmp_path)
    assert "ONDOL_STORAGE_LOCALMINIO" in unknown.value.way_out
    entry = {"type": "s3", "access_key_id": "a", "secret_access_key": "b", "endpoint_url": s3, "region": "us-east-1"}
    monkeypatch.setenv("ONDOL_STORAGE_LOCALMINIO", json.dumps(entry))
    assert (model_source.of_storage(storage, home, tmp_path).path / "model.joblib").read_bytes() == b"x"


def test_claims_are_folders_of_the_home(home: Settings, tmp_path: Path) -> None:
    with pytest.raises(errors.InputError, match="pvc") as missing:
        model_source.fetch("pvc://models/delay", home, tmp_path)
    assert "pvc/models" in missing.value.way_out
    (home.home / "pvc" / "models" / "delay").mkdir(parents=True)
    assert model_source.fetch("pvc://models/delay", home, tmp_path).path.name == "delay"
    with pytest.raises(errors.InputError):
        model_source.fetch("pvc://models/../../..", home, tmp_path)


def test_archives_are_unpacked_and_none_gets_out_of_its_folder(home: Settings, tmp_path: Path) -> None:
    good = tmp_path / "model.tar.gz"
    with tarfile.open(good, "w:gz") as archive:
        member = tarfile.TarInfo("model.joblib")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    found = model_source.fetch(str(good), home, tmp_path / "one").path
    assert (found / "model.joblib").read_bytes() == b"abc"
    bad = tmp_path / "bad.zip"
    with zipfile.ZipFile(bad, "w") as zipped:
        zipped.writestr("../../evil", "x")
    evil = tmp_path / "evil.tar"
    with tarfile.open(evil, "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    for number, path in enumerate((bad, evil)):
        with pytest.raises(errors.InputError, match="unpacked"):
            model_source.fetch(str(path), home, tmp_path / f"out{number}")
    assert not list(tmp_path.rglob("evil")), "nothing was written outside"
    assert remote_files.unpacked(found, tmp_path / "unused") == found


def test_several_addresses_make_one_folder(plane: Plane, tmp_path: Path) -> None:
    model, beside = tmp_path / "model", tmp_path / "beside"
    write(model)
    beside.mkdir()
    (beside / "readme.txt").write_text("x")
    service = manifest("x")
    del service["spec"]["predictor"]["model"]["storageUri"]
    service["spec"]["predictor"]["storageUris"] = [
        {"uri": f"file://{model}", "mountPath": "/mnt/models"},
        {"uri": f"file://{beside}", "mountPath": "/mnt/models/notes"},
    ]
    assert inference_service.typed(service).predictor.storage_uris[1].mount_path == "/mnt/models/notes"
    resources.apply(plane.store, service)
    assert settle(plane)["modelStatus"]["transitionStatus"] == "UpToDate"
    assert plane.predict("delay", X[:5].tolist()).json()["predictions"] == Y[:5].tolist()
    assert joblib.load(model / "model.joblib") is not None
