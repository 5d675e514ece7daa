"""Unmodified inference clients against a real data plane: KServe's SDK and Triton's client, over HTTP and gRPC.

Each runs in a process of its own, because both libraries register messages of the same names and cannot be imported
together; the rows and the expected labels go in and the answers come out as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from tests.behaviour import serving_tools
from tests.behaviour.serving_tools import Plane
from tests.conftest import new_settings

from ondol.store.connection import Store

pytestmark = pytest.mark.slow

X = serving_tools.matrix(200, 4)
Y = (X[:, 0] > 0).astype(int)
LINEAR = LogisticRegression().fit(X, Y)
WORDS = RandomForestClassifier(5, random_state=0).fit(X, np.where(Y, "늦음", "on time"))
ROWS = X[:3]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("clients")
    home = new_settings(folder)
    with Store(home.database) as store, serving_tools.running(home, store, grpc=True) as plane:
        plane.serve("linear", LINEAR, folder / "linear")
        plane.serve("words", WORDS, folder / "words")
        yield plane


def client(plane: Plane, program: str) -> Any:
    """Run a client's program; it finds `URL`, `GRPC` and `ROWS`, and calls `answer(...)` once."""
    head = f"""
        import json, warnings
        warnings.simplefilter("ignore")
        import numpy as np
        URL, GRPC, ROWS = {plane.settings.data.url!r}, {plane.settings.grpc_at!r}, np.array({ROWS.tolist()!r})
        def answer(**found):
            print("ANSWER " + json.dumps(found))
        """
    text = textwrap.dedent(head) + textwrap.dedent(program)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    return json.loads(line.removeprefix("ANSWER "))


TRITON = """
import tritonclient.{kind} as triton
from tritonclient.utils import InferenceServerException
client = triton.InferenceServerClient({url})
tensor = triton.InferInput("x", list(ROWS.shape), "FP32")
tensor.set_data_from_numpy(ROWS.astype(np.float32))
linear = client.infer("linear", [tensor]).as_numpy("output-0")
words = client.infer("words", [tensor], outputs=[triton.InferRequestedOutput("output-0")]).as_numpy("output-0")
errors = []
for wrong in (
    lambda: client.infer("nobody", [tensor]),
    lambda: client.infer("linear", [tensor], sequence_id=1, sequence_start=True),
    lambda: client.infer("linear", [tensor], model_version="999"),
    lambda: client.load_model("linear", config="{{}}"),
    lambda: client.unload_model("linear"),
):
    try:
        wrong()
    except InferenceServerException as error:
        errors.append(error.message())
client.load_model("linear")
metadata, index = client.get_model_metadata("linear"), client.get_model_repository_index()
if isinstance(metadata, dict):
    shape, names = metadata["inputs"][0]["shape"], [one["name"] for one in index]
else:
    shape, names = list(metadata.inputs[0].shape), [one.name for one in index.models]
answer(
    linear=linear.tolist(), words=[word.decode() for word in words], errors=errors,
    up=[client.is_server_live(), client.is_server_ready(), client.is_model_ready("linear")],
    shape=[int(size) for size in shape], index=sorted(names),
)
"""


@pytest.mark.parametrize(("kind", "url"), [("http", 'URL.removeprefix("http://")'), ("grpc", "GRPC")])
def test_tritons_client(plane: Plane, kind: str, url: str) -> None:
    found = client(plane, TRITON.format(kind=kind, url=url))
    assert found["linear"] == LINEAR.predict(ROWS.astype(np.float32)).tolist()
    assert found["words"] == WORDS.predict(ROWS.astype(np.float32)).tolist()
    assert found["up"] == [True, True, True]
    assert found["shape"] == [-1, 4]
    assert found["index"] == ["linear", "words"]
    assert ["nobody" in found["errors"][0], "sequences" in found["errors"][1], "'999'" in found["errors"][2]] == [
        True
    ] * 3
    assert ["parameters" in found["errors"][3], "InferenceService" in found["errors"][4]] == [True] * 2


KSERVE_REST = """
import asyncio, httpx
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

def request(model, rows, datatype, binary, **more):
    tensor = InferInput("x", list(rows.shape), datatype)
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return InferRequest(model, [tensor], **more)

async def main():
    v1, v2 = (InferenceRESTClient(RESTConfig(protocol=one, retries=0)) for one in ("v1", "v2"))
    labels = (await v1.infer(URL, {"instances": ROWS.tolist()}, model_name="linear"))["predictions"]
    up = [await v1.is_server_live(URL), await v1.is_model_ready(URL, "linear"), await v2.is_server_live(URL),
          await v2.is_server_ready(URL), await v2.is_model_ready(URL, "linear")]
    tensors = []
    for binary in (False, True):
        plain = await v2.infer(URL, request("linear", ROWS, "FP64", binary), model_name="linear")
        half = request("words", ROWS.astype(np.float16), "FP16", True, parameters={"binary_data_output": binary})
        words = await v2.infer(URL, half, model_name="words")
        tensors.append([plain.outputs[0].as_numpy().tolist(), words.outputs[0].as_numpy().astype(str).tolist()])
    errors = []
    for wrong in (
        lambda: v1.explain(URL, "linear", {"instances": ROWS.tolist()}),
        lambda: v2.infer(URL, request("linear", ROWS[:, :2], "FP64", True), model_name="linear"),
    ):
        try:
            await wrong()
        except httpx.HTTPStatusError as error:
            errors.append([error.response.status_code, str(error)])
    answer(labels=labels, up=up, tensors=tensors, errors=errors)

asyncio.run(main())
"""


def test_kserves_rest_client(plane: Plane) -> None:
    found = client(plane, KSERVE_REST)
    labels, words = LINEAR.predict(ROWS).tolist(), WORDS.predict(ROWS.astype(np.float16)).tolist()
    assert found["labels"] == labels
    assert found["up"] == [True] * 5
    assert found["tensors"] == [[labels, words], [labels, words]]
    (explain, width) = found["errors"]
    assert explain[0] == 404
    assert "no explainer" in explain[1]
    assert width[0] == 400
    assert "2 features, but the model takes 4" in width[1]


KSERVE_GRPC = """
import asyncio, grpc
from kserve import InferenceGRPCClient, InferInput, InferRequest

async def main():
    client = InferenceGRPCClient(GRPC, retries=0)
    found = []
    for binary in (True, False):
        tensor = InferInput("x", list(ROWS.shape), "FP64")
        tensor.set_data_from_numpy(ROWS, binary_data=binary)
        linear = await client.infer(InferRequest("linear", [tensor], request_id="r-1"))
        words = await client.infer(InferRequest("words", [tensor]))
        found.append([linear.id, linear.outputs[0].as_numpy().tolist(),
                      [word.decode() for word in words.outputs[0].as_numpy().tolist()]])
    up = [await client.is_server_live(), await client.is_server_ready(), await client.is_model_ready("linear")]
    try:
        await client.infer(InferRequest("nobody", [tensor]))
    except grpc.RpcError as error:
        failed = error.code().name
    answer(found=found, up=up, failed=failed)

asyncio.run(main())
"""


def test_kserves_grpc_client(plane: Plane) -> None:
    found = client(plane, KSERVE_GRPC)
    expected = ["r-1", LINEAR.predict(ROWS).tolist(), WORDS.predict(ROWS).tolist()]
    assert found == {"found": [expected, expected], "up": [True, True, True], "failed": "NOT_FOUND"}
