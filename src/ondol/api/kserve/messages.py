"""The messages of the Open Inference Protocol's gRPC service, made at import without a compiler.

Names and field numbers are the protocol's (package `inference`, service `GRPCInferenceService`), with the two further
parameter types that Triton's clients know. The messages live in a descriptor pool of their own, so that a client
library in the same process may register its own under the same names. Importing this imports protobuf and nothing
else of gRPC. Must not read or write tensors: that is `grpc_tensors`.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = "inference.GRPCInferenceService"

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}

# A message is a list of `type name = number`; `*` repeats, `map` is string -> InferParameter, `|` is in the oneof.
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live = 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready = 1",
    "ModelReadyRequest": "string name = 1; string version = 2",
    "ModelReadyResponse": "bool ready = 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name = 1; string version = 2; *string extensions = 3",
    "ModelMetadataRequest": "string name = 1; string version = 2",
    "ModelMetadataResponse": "string name = 1; *string versions = 2; string platform = 3;"
    "*ModelMetadataResponse.TensorMetadata inputs = 4; *ModelMetadataResponse.TensorMetadata outputs = 5",
    "ModelMetadataResponse.TensorMetadata": "string name = 1; string datatype = 2; *int64 shape = 3",
    "ModelInferRequest": "string model_name = 1; string model_version = 2; string id = 3; map parameters = 4;"
    "*ModelInferRequest.InferInputTensor inputs = 5; *ModelInferRequest.InferRequestedOutputTensor outputs = 6;"
    "*bytes raw_input_contents = 7",
    "ModelInferRequest.InferInputTensor": "string name = 1; string datatype = 2; *int64 shape = 3; map parameters = 4;"
    "InferTensorContents contents = 5",
    "ModelInferRequest.InferRequestedOutputTensor": "string name = 1; map parameters = 2",
    "ModelInferResponse": "string model_name = 1; string model_version = 2; string id = 3; map parameters = 4;"
    "*ModelInferResponse.InferOutputTensor outputs = 5; *bytes raw_output_contents = 6",
    "ModelInferResponse.InferOutputTensor": "string name = 1; string datatype = 2; *int64 shape = 3;"
    "map parameters = 4; InferTensorContents contents = 5",
    "InferParameter": "|bool bool_param = 1; |int64 int64_param = 2; |string string_param = 3;"
    "|double double_param = 4; |uint64 uint64_param = 5",
    "InferTensorContents": "*bool bool_contents = 1; *int32 int_contents = 2; *int64 int64_contents = 3;"
    "*uint32 uint_contents = 4; *uint64 uint64_contents = 5; *float fp32_contents = 6; *double fp64_contents = 7;"
    "*bytes bytes_contents = 8",
    # KServe's clients write the model's name as field 1, Triton's as field 2 after the repository's.
    "RepositoryModelLoadRequest": "string first_name = 1; string second_name = 2; map parameters = 3",
    "RepositoryModelLoadResponse": "string model_name = 1; bool isLoaded = 2",
    "RepositoryModelUnloadRequest": "string first_name = 1; string second_name = 2",
    "RepositoryModelUnloadResponse": "string model_name = 1; bool isUnloaded = 2",
    "RepositoryIndexRequest": "string repository_name = 1; bool ready = 2",
    "RepositoryIndexResponse": "*RepositoryIndexResponse.ModelIndex models = 1",
    "RepositoryIndexResponse.ModelIndex": "string name = 1; string version = 2; string state = 3; string reason = 4",
}


def _declare(message: descriptor_pb2.DescriptorProto, full_name: str, fields: str) -> None:
    for line in filter(None, (one.strip() for one in fields.split(";"))):
        kind, name, _, number = line.split()
        field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
        if kind.startswith("*"):
            kind, field.label = kind[1:], _Field.LABEL_REPEATED
        if kind.startswith("|"):
            kind, field.oneof_index = kind[1:], 0
            if not message.oneof_decl:
                message.oneof_decl.add(name="parameter_choice")
        if kind == "map":
            _declare_map(message, full_name, field)
        elif kind in _SCALARS:
            field.type = _SCALARS[kind]
        else:
            field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"


def _declare_map(
    message: descriptor_pb2.DescriptorProto, full_name: str, field: descriptor_pb2.FieldDescriptorProto
) -> None:
    entry = message.nested_type.add(name="ParametersEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=_Field.TYPE_MESSAGE, label=_Field.LABEL_OPTIONAL,
        type_name=f".{PACKAGE}.InferParameter",
    )  # fmt: skip
    field.type, field.label = _Field.TYPE_MESSAGE, _Field.LABEL_REPEATED
    field.type_name = f".{PACKAGE}.{full_name}.ParametersEntry"


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package=PACKAGE, syntax="proto3")
    declared: dict[str, descriptor_pb2.DescriptorProto] = {}
    for full_name, fields in _MESSAGES.items():
        outer, _, inner = full_name.rpartition(".")
        declared[full_name] = message = (declared[outer].nested_type if outer else file.message_type).add(name=inner)
        _declare(message, full_name, fields)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES
    }


CLASSES = _build()
"""Message classes by their name in the package, nested ones as `Outer.Inner`."""
