"""`predictor.model` of an InferenceService and KServe's older keys: formats, protocols, runtimes, variables.

To serve one more format, runtime or variable: build it, and write `HONOURED` beside its name here.
"""

from __future__ import annotations

import re

from ondol.formats.kserve import pod
from ondol.formats.resource.states import HONOURED, State, cluster, honoured, no_effect, not_yet, refused
from ondol.formats.resource.types import Field, Flag, Json, ListOf, Object, Report, Rule, Text, texts

BLOCKED_ENV = ("PYTHONPATH",)

_NEEDS_LIBRARY = "its library is not loaded here"
MODEL_FORMATS: dict[str, State] = {
    "sklearn": HONOURED,
    "mlflow": HONOURED,
    "xgboost": HONOURED,
    "lightgbm": HONOURED,
    "catboost": HONOURED,
    "onnx": HONOURED,
    "pytorch": HONOURED,
    "huggingface": HONOURED,
    "tensorflow": refused("TensorFlow models are not loaded here", "log it with MLflow and use `mlflow`"),
    "triton": refused("there is no Triton here", "use the model's own format"),
    "pmml": refused("PMML is not read here"),
    "paddle": refused("Paddle models are not loaded here"),
    "vLLM": refused("there is no vLLM here", "use an LLM application with `gguf:` or an endpoint"),
}
"""What `modelFormat.name` may be. To serve a format: build it, and write `HONOURED` here."""

PROTOCOLS: dict[str, State] = {
    "v1": HONOURED,
    "v2": HONOURED,
    "grpc-v1": refused("V1 has no gRPC form that a server here speaks", "use grpc-v2"),
    "grpc-v2": refused("no runtime of these formats is chosen by it; gRPC is served beside v2", "use v2"),
}
RUNTIMES: dict[str, State] = {
    "kserve-sklearnserver": HONOURED,
    "kserve-mlserver": HONOURED,
    "kserve-xgbserver": HONOURED,
    "kserve-lgbserver": HONOURED,
    "kserve-predictiveserver": HONOURED,
}
"""Serving runtimes of KServe whose answers are given here; others are refused."""

BUILT_IN = frozenset((*RUNTIMES, "kserve-tritonserver", "kserve-huggingfaceserver"))
"""KServe's own runtimes of formats served here: applying one of that name changes nothing about who answers."""

ONE_FORMAT = {"kserve-sklearnserver": "sklearn", "kserve-xgbserver": "xgboost", "kserve-lgbserver": "lightgbm"}
"""The runtimes that serve one format only."""

MODEL_ENV: dict[str, State] = {"PREDICT_PROBA": honoured("a classifier answers with probabilities")}
OTHER_ENV = not_yet("models share one process, so it cannot be set per model")

FRAMEWORKS = (
    "sklearn", "xgboost", "tensorflow", "pytorch", "triton", "onnx", "huggingface", "pmml", "lightgbm", "paddle",
)  # fmt: skip
"""KServe's older keys: `predictor.sklearn` is `predictor.model` without its format."""

_STORAGE = Object(
    {
        "key": Field(Text(), about="Which entry of the storage Secret."),
        "path": Field(Text(), about="Where in the bucket."),
        "parameters": Field(texts(), about="Overrides of the entry, such as `type` and `bucket`."),
        "schemaPath": Field(Text(), refused("the model's own signature is used")),
    }
)


def _model_name(value: Json, wrong: Report) -> None:
    if value.get("name"):
        wrong("name", "the 'name' field is not allowed in standard predictor")


def blocked_env(value: Json, wrong: Report) -> None:
    """KServe lets nobody set these."""
    for index, one in enumerate(value.get("env") or []):
        if one["name"] in BLOCKED_ENV:
            wrong(f"env[{index}]", f"setting {one['name']} is not allowed for security reasons")


_NO_PROCESS = refused("the model has no process of its own", "write the value")
_OWN_SERVER = "models run in Ondol's own server, not in an image"


def _container() -> dict[str, Field]:
    """What is overridden of the server's container."""
    return pod.container(
        name=Field(Text({"": HONOURED, "kserve-container": HONOURED}, other=refused("the name is KServe's own"))),
        image=Field(Text(), refused(_OWN_SERVER)),
        imagePullPolicy=Field(Text(), refused(_OWN_SERVER)),
        command=Field(ListOf(Text()), refused(_OWN_SERVER)),
        args=Field(ListOf(Text()), not_yet("Ondol's own server takes no arguments")),
        env=Field(pod.env(Text(MODEL_ENV, OTHER_ENV), _NO_PROCESS), about="Variables of the server."),
        resources=Field(pod.RESOURCES, no_effect("one data plane serves every model"), "What the model may use."),
        storageUri=Field(Text(), about="Where the model's files are."),
        storage=Field(_STORAGE, about="An entry of the storage Secret, here `ONDOL_STORAGE_<KEY>`, and a path in it."),
        runtimeVersion=Field(Text(), refused("the model decides what it needs; there is one runtime")),
    )


NO_FILES = "is required: where the model's files are"
_OF_ONE_SERVER = re.compile(
    rf"(?:{'|'.join(FRAMEWORKS)})"
    r"|\w+\.(?:modelFormat\.(?:name|version)|runtime|runtimeVersion|image|imagePullPolicy|command|args|resources)"
    r"|\w+\.env\[\d+\]\.(?:name|valueFrom\.(?:secretKeyRef|configMapKeyRef))"
)


def own_server_takes(path: str) -> bool:
    """Whether a field of a predictor is a matter of Ondol's own server only: a runtime of the user's takes any.

    :param path: below the predictor: `model.args`, `tensorflow`.
    """
    return _OF_ONE_SERVER.fullmatch(path) is not None


def art_fields() -> dict[str, Field]:
    """Return what the ART explainer has in common with a model."""
    return _container()


def _fields(variant: bool) -> dict[str, Field]:
    """Return what `model` and every older key have in common."""
    own = {
        "protocolVersion": Field(Text(PROTOCOLS), about="v1 or v2: which runtime answers, and in which dialect."),
        "confidential": Field(
            Object({"enabled": Field(Flag(), required=True), "resourceId": Field(Text())}),
            cluster("it needs a trusted execution environment"),
        ),
    }
    if variant:
        own["name"] = Field(Text(), no_effect("there is no container to name"))
    return {**_container(), **own}


def _rules(variant: bool) -> tuple[Rule, ...]:
    return (blocked_env,) if variant else (_model_name, blocked_env)


_NO_RUNTIME = refused("no runtime here supports it", "apply a `ServingRuntime` that does")
_NO_SUCH_RUNTIME = refused("there is no such runtime here", "apply it before its services")


def model(variant: bool = False) -> Object:
    """Return `model`; in a canary's predictor (`variant`) its container may have a name."""
    form = Object(
        {
            "name": Field(
                Text(MODEL_FORMATS, _NO_RUNTIME),
                required=True,
            ),
            "version": Field(Text(), no_effect("the model's own recorded version is checked instead")),
        }
    )
    return Object(
        {
            "modelFormat": Field(form, about="What wrote the model.", required=True),
            "runtime": Field(
                Text(RUNTIMES, _NO_SUCH_RUNTIME),
                about="A runtime by name.",
            ),
            **_fields(variant),
        },
        rules=_rules(variant),
    )


def framework(name: str, variant: bool = False) -> Field:
    """Return one of the older keys."""
    return Field(Object(_fields(variant), rules=_rules(variant)), MODEL_FORMATS[name], f"`model` with format {name}.")
