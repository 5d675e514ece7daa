"""V2 over gRPC on a real data plane: answers, and a status that names the field for whatever a client gets wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import numpy as np
import onnx
import pytest
import skl2onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from tests.behaviour import serving_tools
from tests.behaviour.serving_tools import Plane
from tests.conftest import new_settings

from ondol.api.kserve.messages import CLASSES, SERVICE
from ondol.app import listen
from ondol.base import errors
from ondol.base.settings import Address
from ondol.records.release import ModelManifest
from ondol.records.rollout import Route
from ondol.serving import payloads_raw
from ondol.store import observations, releases, routes
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

COLUMNS = 5
X = serving_tools.matrix(300, COLUMNS)
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
LINEAR = LogisticRegression().fit(X, Y)
FOREST = RandomForestClassifier(10, random_state=0).fit(X, np.where(Y, "late", "on time"))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("grpc")
    home = new_settings(folder)
    with Store(home.database) as store, serving_tools.running(home, store, grpc=True) as plane:
        for name, model in {"linear": LINEAR, "forest": FOREST}.items():
            plane.serve(name, model, folder / name)
        for name, graph in {"onnx": skl2onnx.to_onnx(LINEAR, X[:1], options={"zipmap": False}), "two": twice()}.items():
            (folder / f"{name}.onnx").write_bytes(graph.SerializeToString())
            digest = Blobs(home.blobs).put_path(folder / f"{name}.onnx")
            made = releases.put(store, name, ModelManifest(digest, name, "onnx"))
            routes.put(store, Route(name, "model", made.digest))
            plane.wait_for(name, made.digest)
        yield plane


def twice() -> Any:
    """Return a graph with two outputs that are no labels: twice the rows, and their squares as a column each."""
    rows = onnx.helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, ["N", 2])
    made = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 2]) for name in ("twice", "square")]
    nodes = [
        onnx.helper.make_node(kind, ["rows", "rows"], [name]) for kind, name in (("Add", "twice"), ("Mul", "square"))
    ]
    graph = onnx.helper.make_graph(nodes, "both", [rows], made)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def channel(plane: Plane) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(plane.settings.grpc_at) as opened:
        yield opened


def call(channel: grpc.Channel, method: str, request: Any = b"", **options: Any) -> Any:
    """Call a method with a message or with bytes, and return its answer."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    answer = channel.unary_unary(f"/{SERVICE}/{method}")(data, timeout=options.pop("timeout", 120), **options)
    return CLASSES[f"{method}Response"].FromString(answer)


def request(model: str = "linear", rows: Any = X[:3], raw: bool = True, **change: Any) -> Any:
    """Return a request with one FP64 tensor."""
    tensor: dict[str, Any] = {"name": "x", "datatype": "FP64", "shape": rows.shape}
    fields: dict[str, Any] = {"model_name": model, "id": "r-1", "inputs": [tensor]}
    if raw:
        fields["raw_input_contents"] = [rows.tobytes()]
    else:
        tensor["contents"] = {"fp64_contents": rows.ravel().tolist()}
    tensor |= {name: change.pop(name) for name in ("datatype", "shape", "contents") if name in change}
    return CLASSES["ModelInferRequest"](**{**fields, **change})


def refused(channel: grpc.Channel, method: str, message: Any, **options: Any) -> tuple[str, str]:
    """Return the code and the text of a call that must be refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, message, **options)
    failed: Any = caught.value
    return failed.code().name, failed.details()


def test_an_answer_is_raw_when_the_request_was(channel: grpc.Channel) -> None:
    answer = call(channel, "ModelInfer", request())
    assert (answer.model_name, answer.id) == ("linear", "r-1")
    assert np.frombuffer(answer.raw_output_contents[0], "<i8").tolist() == LINEAR.predict(X[:3]).tolist()
    typed = call(channel, "ModelInfer", request(raw=False))
    assert list(typed.outputs[0].contents.int64_contents) == LINEAR.predict(X[:3]).tolist()
    assert (typed.outputs[0].name, typed.outputs[0].datatype, list(typed.outputs[0].shape)) == (
        "output-0",
        "INT64",
        [3],
    )
    words = call(channel, "ModelInfer", request("forest", raw=False)).outputs[0].contents.bytes_contents
    assert [word.decode() for word in words] == FOREST.predict(X[:3]).tolist()


def outputs_of(channel: grpc.Channel, plane: Plane, model: str, rows: Any, *names: str) -> dict[str, Any]:
    """Ask for outputs over gRPC and over HTTP, which must agree; return their values by name."""
    asked = [{"name": name} for name in names]
    answer = call(channel, "ModelInfer", request(model, rows, outputs=asked))
    raws, kinds = answer.raw_output_contents, {"INT64": "<i8", "FP32": "<f4", "FP64": "<f8"}
    found = {
        one.name: np.frombuffer(raw, kinds[one.datatype]).reshape(one.shape)
        for one, raw in zip(answer.outputs, raws, strict=True)
    }
    tensor = {"name": "x", "datatype": "FP64", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    said = plane.infer(model, {"inputs": [tensor], **({"outputs": asked} if asked else {})}).json()["outputs"]
    assert {one["name"]: one["shape"] for one in said} == {name: list(value.shape) for name, value in found.items()}
    assert all(np.allclose(one["data"], found[one["name"]].ravel()) for one in said)
    return found


def test_onnx_graphs_answer_all_their_outputs_by_name_as_triton_does(channel: grpc.Channel, plane: Plane) -> None:
    rows = X[:4].astype("<f4").astype("<f8")
    found = outputs_of(channel, plane, "onnx", rows)
    assert list(found) == ["label", "probabilities"]
    assert found["label"].tolist() == LINEAR.predict(rows).tolist()
    assert np.allclose(found["probabilities"], LINEAR.predict_proba(rows), atol=1e-5)
    assert list(outputs_of(channel, plane, "onnx", rows, "probabilities")) == ["probabilities"]
    assert list(outputs_of(channel, plane, "onnx", rows, "probabilities", "label")) == ["probabilities", "label"]
    pairs = np.array([[1.0, 2.0], [3.0, 4.0]])
    both = outputs_of(channel, plane, "two", pairs)
    assert [both["twice"].tolist(), both["square"].tolist()] == [(2 * pairs).tolist(), (pairs**2).tolist()]
    assert list(outputs_of(channel, plane, "two", pairs, "square")) == ["square"]
    assert plane.predict("two", pairs.tolist()).json() == {"predictions": (2 * pairs).tolist()}
    assert plane.predict("onnx", rows.tolist()).json() == {"predictions": LINEAR.predict(rows).tolist()}
    code, text = refused(channel, "ModelInfer", request("two", pairs, outputs=[{"name": "output-0"}]))
    assert (code, text) == ("INVALID_ARGUMENT", "outputs[0].name: no output 'output-0'; known: twice, square")
    labels = LINEAR.predict(rows).tolist()
    call(channel, "ModelInfer", request("onnx", rows, id="both"))

    def logged() -> list[Any]:
        return [json.loads(one.prediction) for one in observations.of_service(plane.store, "onnx") if one.id == "both"]

    serving_tools.wait(lambda: bool(logged()))
    assert logged() == [labels], "the log keeps what the model predicts"


@pytest.mark.parametrize(("datatype", "dtype"), [("FP16", "<f2"), ("FP32", "<f4"), ("INT8", "i1"), ("UINT64", "<u8")])
def test_every_width_arrives_as_it_was_sent(channel: grpc.Channel, datatype: str, dtype: str) -> None:
    rows = np.abs(X[:8] * 10).astype(dtype)
    answer = call(channel, "ModelInfer", request(rows=rows, datatype=datatype))
    expected = LINEAR.predict(rows.astype(np.float64)).tolist()
    assert np.frombuffer(answer.raw_output_contents[0], "<i8").tolist() == expected


def test_the_service_describes_itself(channel: grpc.Channel) -> None:
    assert call(channel, "ServerLive").live
    assert call(channel, "ServerReady").ready
    assert "binary_tensor_data" in call(channel, "ServerMetadata").extensions
    metadata = call(channel, "ModelMetadata", CLASSES["ModelMetadataRequest"](name="linear"))
    assert [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs] == [
        ("input-0", "FP64", [-1, COLUMNS])
    ]
    (version,) = metadata.versions
    named = CLASSES["ModelReadyRequest"](name="linear", version=version)
    assert call(channel, "ModelReady", named).ready
    assert call(channel, "ModelInfer", request(model_version=version)).outputs
    index = call(channel, "RepositoryIndex")
    assert [(one.name, one.state) for one in index.models] == [
        (name, "READY") for name in ("forest", "linear", "onnx", "two")
    ]
    for field in ("first_name", "second_name"):  # KServe's clients write the one, Triton's the other
        load = CLASSES["RepositoryModelLoadRequest"](**{field: "linear"})
        assert call(channel, "RepositoryModelLoad", load).isLoaded
        unload = CLASSES["RepositoryModelUnloadRequest"](**{field: "linear"})
        code, text = refused(channel, "RepositoryModelUnload", unload)
        assert code == "FAILED_PRECONDITION"
        assert "InferenceService" in text


WRONG: list[tuple[Any, str, str]] = [
    (b"\xff\xff", "INVALID_ARGUMENT", "not a ModelInferRequest"),
    (request("nobody"), "NOT_FOUND", "nobody"),
    (request(model_version="9"), "NOT_FOUND", "'9'"),
    (request(rows=X[:3, :4]), "INVALID_ARGUMENT", "inputs[0].shape"),
    (request(shape=[2, COLUMNS]), "INVALID_ARGUMENT", "inputs[0]"),
    (request(shape=[-3, -5]), "INVALID_ARGUMENT", "inputs[0].shape"),
    (request(datatype="FP128"), "INVALID_ARGUMENT", "inputs[0].datatype"),
    (request(datatype="BYTES"), "INVALID_ARGUMENT", "inputs[0]"),
    (request(rows=np.where(X[:3] > 0, np.nan, X[:3])), "INVALID_ARGUMENT", "missing values"),
    (request(rows=np.full((1, COLUMNS), np.inf)), "INVALID_ARGUMENT", "inputs[0].data[0]"),
    (request(contents={"fp64_contents": [1.0]}), "INVALID_ARGUMENT", "inputs[0].contents"),
    (request(raw=False, contents={"fp32_contents": [1.0]}), "INVALID_ARGUMENT", "fp32_contents"),
    (request(raw=False, datatype="FP16"), "INVALID_ARGUMENT", "inputs[0].datatype"),
    (request(raw_input_contents=[b"", b""]), "INVALID_ARGUMENT", "raw_input_contents"),
    (request(inputs=[], raw_input_contents=[]), "INVALID_ARGUMENT", "inputs"),
    (request(outputs=[{"name": "nothing"}]), "INVALID_ARGUMENT", "outputs[0].name"),
    (request(parameters={"sequence_id": {"int64_param": 3}}), "INVALID_ARGUMENT", "parameters.sequence_id"),
    (request(parameters={"timeout": {"int64_param": -3}}), "INVALID_ARGUMENT", "parameters.timeout"),
    (request(raw_input_contents=[b"x" * (65 * 1024 * 1024)]), "RESOURCE_EXHAUSTED", ""),
]


@pytest.mark.parametrize(("message", "code", "text"), WRONG)
def test_a_mistake_is_a_status_that_names_the_field(channel: grpc.Channel, message: Any, code: str, text: str) -> None:
    found, details = refused(channel, "ModelInfer", message)
    assert found == code
    assert text in details


def test_what_is_not_served_is_unimplemented(channel: grpc.Channel) -> None:
    for method in ("ModelStreamInfer", "ModelConfig", "Nonsense"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{SERVICE}/{method}")(b"", timeout=120)
        failed: Any = caught.value
        assert failed.code().name == "UNIMPLEMENTED"


def test_metadata_say_who_asks(plane: Plane, channel: grpc.Channel) -> None:
    callable_ = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    metadata = (("x-request-id", "order-7"), ("x-ondol-unit", "customer-3"))
    _, made = callable_.with_call(request().SerializeToString(), metadata=metadata, timeout=120)
    trailing = dict(made.trailing_metadata())
    assert trailing["x-request-id"] == "order-7"
    assert trailing["x-ondol-arm"] == "stable"

    def logged() -> list[Any]:
        return [one for one in observations.of_service(plane.store, "linear") if one.id == "order-7"]

    serving_tools.wait(logged)
    assert logged()[0].unit == "customer-3"


tensors = st.fixed_dictionaries(
    {
        "name": st.text(max_size=3),
        "datatype": st.sampled_from(["FP64", "FP32", "FP16", "BF16", "INT8", "INT64", "BOOL", "BYTES", "", "X"]),
        "shape": st.lists(st.integers(-1, 6), max_size=3) | st.just([1, COLUMNS]),
    },
    optional={
        "contents": st.fixed_dictionaries(
            {},
            optional={
                "fp64_contents": st.lists(st.floats(), max_size=6),
                "int_contents": st.lists(st.integers(-200, 200), max_size=6),
                "bytes_contents": st.lists(st.binary(max_size=3), max_size=6),
                "bool_contents": st.lists(st.booleans(), max_size=6),
            },
        )
    },
)


@settings(max_examples=1200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    inputs=st.lists(tensors, max_size=2),
    raw=st.lists(st.binary(max_size=48) | st.just(X[0].tobytes()), max_size=2),
    model=st.sampled_from(["linear", "forest", "", "x/y"]),
)
def test_malformed_messages_never_cause_an_internal_error(
    channel: grpc.Channel, inputs: list[Any], raw: list[bytes], model: str
) -> None:
    message = CLASSES["ModelInferRequest"](model_name=model, inputs=inputs, raw_input_contents=raw)
    try:
        answer = call(channel, "ModelInfer", message)
    except grpc.RpcError as error:
        failed: Any = error
        assert failed.code().name in ("INVALID_ARGUMENT", "NOT_FOUND")
    else:
        assert len(inputs) == 1  # the answer has a row per row of what was sent
        assert list(answer.outputs[0].shape) == [inputs[0]["shape"][0]]
        assert inputs[0]["shape"][1:] == [COLUMNS]


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=60), method=st.sampled_from(["ModelInfer", "ModelReady", "RepositoryIndex"]))
def test_random_bytes_never_cause_an_internal_error(channel: grpc.Channel, data: bytes, method: str) -> None:
    try:
        call(channel, method, data)
    except grpc.RpcError as error:
        failed: Any = error
        assert failed.code().name in ("INVALID_ARGUMENT", "NOT_FOUND")


@given(st.lists(st.text(max_size=8), min_size=1))
def test_raw_texts_come_back(texts: list[str]) -> None:
    assert payloads_raw.decode("BYTES", payloads_raw.encode(texts, "BYTES"), len(texts), "x") == texts


def test_a_reserved_port_is_for_grpc_alone() -> None:
    """A port kept for gRPC is nobody else's, and gRPC itself can still take it."""
    with listen.reserve(Address("127.0.0.1", 0), "--grpc") as kept:
        address = listen.address_of(kept)
        with pytest.raises(errors.ConflictError) as caught:
            listen.bind(address, "--grpc")
        assert "--grpc" in caught.value.way_out

        async def serve() -> int:
            server = grpc.aio.server()
            port = server.add_insecure_port(str(address))
            await server.stop(None)
            return int(port)

        assert asyncio.run(serve()) == address.port
