"""Compiled pipelines as records: exact values, conditions that are read, and nothing that is silently ignored."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.base import errors
from ondol.formats import kfp_condition, kfp_container, kfp_graph, kfp_ir
from ondol.formats.kfp_container import PythonCode
from ondol.formats.kfp_node import Node

SOURCE = "\nimport kfp\nfrom kfp import dsl\n\ndef step(x: int) -> int:\n    return x\n\n"
PIP = (
    "PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --no-warn-script-location "
    "--index-url https://example.invalid/simple --trusted-host https://example.invalid/simple "
    "'pandas==2.2.0' 'scikit-learn'  &&  python3 -m pip install --quiet --no-warn-script-location 'kfp==2.17.0' "
    '\'--no-deps\' \'typing-extensions>=3.7.4,<5; python_version<"3.9"\' && "$0" "$@"\n'
)
RUN = (
    'program_path=$(mktemp -d)\nprintf "%s" "$0" > "$program_path/ephemeral_component.py"\n'
    '_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path "$program_path/x.py" "$@"\n'
)
COMMAND = ["sh", "-c", PIP, "sh", "-ec", RUN, SOURCE]
ARGUMENTS = ["--executor_input", "{{$}}", "--function_to_execute", "step"]


def spec() -> dict[str, Any]:
    """A pipeline of one step, as the compiler writes it."""
    return {
        "components": {
            "comp-step": {
                "executorLabel": "exec-step",
                "inputDefinitions": {
                    "parameters": {"x": {"parameterType": "NUMBER_INTEGER", "defaultValue": 3.0, "isOptional": True}}
                },
                "outputDefinitions": {"parameters": {"Output": {"parameterType": "NUMBER_INTEGER"}}},
            }
        },
        "deploymentSpec": {
            "executors": {"exec-step": {"container": {"image": "python:3.11", "command": COMMAND, "args": ARGUMENTS}}}
        },
        "pipelineInfo": {"name": "one"},
        "root": {
            "dag": {
                "tasks": {
                    "step": {
                        "cachingOptions": {"enableCache": True},
                        "componentRef": {"name": "comp-step"},
                        "inputs": {"parameters": {"x": {"runtimeValue": {"constant": 5.0}}}},
                        "taskInfo": {"name": "step"},
                    }
                }
            }
        },
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.17.0",
    }


def test_a_step_is_read_back_from_its_shell_line() -> None:
    pipeline = kfp_ir.parse([spec()], "one.yaml")
    body = pipeline.components["comp-step"].body
    assert isinstance(body, kfp_container.PythonCode)
    assert (body.function, body.source, body.kfp) == ("step", SOURCE, "kfp==2.17.0")
    assert body.packages == ("pandas==2.2.0", "scikit-learn")
    assert body.pip_options[:2] == ("--index-url", "https://example.invalid/simple")
    graph = pipeline.root.body
    assert isinstance(graph, kfp_graph.Graph)
    assert graph.tasks["step"].parameters["x"].constant == 5
    assert isinstance(pipeline.components["comp-step"].parameters["x"].default, int)
    assert pipeline.notes == ("base image 'python:3.11': the Python that runs Ondol takes its place",)


def places(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every mapping of the document that is not a mapping of names."""
    free = {"components", "tasks", "parameters", "artifacts", "executors", "env"}
    found = [] if path and path[-1] in free else [path]
    for key, member in value.items():
        if isinstance(member, dict) and key not in ("taskInfo", "constant"):
            found += places(member, (*path, key))
    return found


@pytest.mark.parametrize("path", places(spec()), ids=lambda path: ".".join(path) or "top")
def test_an_unknown_field_anywhere_is_refused_with_its_path(path: tuple[str, ...]) -> None:
    changed = copy.deepcopy(spec())
    place = changed
    for key in path:
        place = place[key]
    place["surprise"] = 1
    with pytest.raises(errors.UnsupportedError, match="surprise") as caught:
        kfp_ir.parse([changed], "one.yaml")
    assert caught.value.where == "one.yaml: " + ".".join((*path, "surprise"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parameterIterator": {"itemInput": "x", "items": {"raw": "5"}}}, "not a JSON list"),
        ({"inputs": {"parameters": {"x": {"taskOutputParameter": {"producerTask": "none"}}}}}, "no task 'none'"),
        ({"componentRef": {"name": "none"}}, "no component 'none'"),
        ({"dependentTasks": ["step"]}, "wait for each other"),
        ({"triggerPolicy": {"condition": "__import__('os').system('true')"}}, "is not understood"),
        ({"retryPolicy": {"maxRetryCount": 2, "backoffDuration": "soon"}}, "not a number of seconds"),
        ({"cachingOptions": {"enableCache": "yes"}}, "expected true or false"),
    ],
)
def test_what_a_task_says_wrongly(change: dict[str, Any], said: str) -> None:
    changed = spec()
    changed["root"]["dag"]["tasks"]["step"].update(change)
    with pytest.raises(errors.InputError, match=said):
        kfp_ir.parse([changed], "one.yaml")


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", ".hidden", "a\nb"])
def test_a_name_that_would_leave_its_folder_is_refused(name: str) -> None:
    changed = spec()
    tasks = changed["root"]["dag"]["tasks"]
    tasks[name] = tasks.pop("step")
    with pytest.raises(errors.InputError, match="is not a name"):
        kfp_ir.parse([changed], "one.yaml")
    changed = spec()
    changed["components"]["comp-step"]["outputDefinitions"]["parameters"][name] = {"parameterType": "STRING"}
    with pytest.raises(errors.InputError, match="is not a name"):
        kfp_ir.parse([changed], "one.yaml")


def test_a_platform_that_asks_for_a_cluster_is_refused() -> None:
    secret = {"securityContext": {"runAsUser": "1000"}}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-step": secret}}}}}
    with pytest.raises(errors.UnsupportedError, match="would run the step as somebody else") as caught:
        kfp_ir.parse([spec(), platform], "one.yaml")
    assert caught.value.where.endswith("platforms.kubernetes.deploymentSpec.executors.exec-step.securityContext")


def test_an_accelerator_is_refused_and_other_resources_are_kept() -> None:
    changed = spec()
    container = changed["deploymentSpec"]["executors"]["exec-step"]["container"]
    container["resources"] = {"cpuLimit": 2.0, "resourceCpuLimit": "2"}
    body = kfp_ir.parse([changed], "x").components["comp-step"].body
    assert isinstance(body, PythonCode)
    assert body.resources == {"cpuLimit": 2.0, "resourceCpuLimit": "2"}
    container["resources"] = {"accelerator": {"type": "nvidia.com/gpu", "count": "1"}}
    with pytest.raises(errors.UnsupportedError, match=r"accelerator 'nvidia\.com/gpu'"):
        kfp_ir.parse([changed], "x")


def test_a_component_that_contains_itself_is_refused() -> None:
    changed = spec()
    changed["components"]["comp-step"] = {"dag": {"tasks": {"again": {"componentRef": {"name": "comp-step"}}}}}
    with pytest.raises(errors.InputError, match="contains itself"):
        kfp_ir.parse([changed], "one.yaml")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(json_values)
def test_integers_come_back_from_the_compilers_floats(value: Any) -> None:
    def as_compiled(item: Any) -> Any:
        if isinstance(item, int) and not isinstance(item, bool):
            return float(item)
        if isinstance(item, list):
            return [as_compiled(one) for one in item]
        return {key: as_compiled(one) for key, one in item.items()} if isinstance(item, dict) else item

    assert kfp_ir.whole(as_compiled(value)) == value


@given(st.dictionaries(st.sampled_from(["pipelineInfo", "root", "components", "deploymentSpec", "x"]), json_values))
def test_no_document_makes_the_parser_fall_over(document: dict[str, Any]) -> None:
    with pytest.raises(errors.InputError) as caught:
        kfp_ir.parse([document], "any.yaml")  # the drawn documents have no task, so none is a pipeline
    assert caught.value.where.startswith("any.yaml")


def quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_condition_compares_text_as_text(value: str, wanted: str) -> None:
    text = f"inputs.parameter_values['pipelinechannel--x'] == {quoted(wanted)}"
    condition = kfp_condition.parse(text, "here")
    assert kfp_condition.holds(condition, {"pipelinechannel--x": value}) is (value == wanted)


@given(st.integers(), st.integers(), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), st.booleans())
def test_a_condition_compares_numbers(value: int, limit: int, sign: str, negated: bool) -> None:
    import operator

    compare = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
    compare |= {"==": operator.eq, "!=": operator.ne}
    text = f"int(inputs.parameter_values['n']) {sign} {limit}"
    condition = kfp_condition.parse(f"!({text})" if negated else text, "here")
    assert kfp_condition.holds(condition, {"n": value}) is (compare[sign](value, limit) is not negated)


@pytest.mark.parametrize(
    ("text", "inputs", "holds"),
    [
        ("inputs.parameter_values['a'] == true && !(inputs.parameter_values['b'] == 'x')", {"a": True, "b": "y"}, True),
        (
            "inputs.parameter_values['a'] == false || double(inputs.parameter_values['b']) > 0.5",
            {"a": True, "b": 1},
            True,
        ),
        ("(1 == 2 || 2 == 2) && 3 >= 3.0", {}, True),
        ("inputs.parameter_values['a'] == 'x'", {"a": "no' or '1'=='1"}, False),
    ],
)
def test_conditions(text: str, inputs: dict[str, Any], holds: bool) -> None:
    assert kfp_condition.holds(kfp_condition.parse(text, "here"), inputs) is holds


@pytest.mark.parametrize("text", ["", "1 ==", "(1 == 1", "1 == 1)", "a.b", "x", "1 = 1", "'open", "__import__('os')"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(errors.UnsupportedError, match="is not understood"):
        kfp_condition.parse(text, "here")


def test_a_condition_without_its_value_says_so() -> None:
    condition = kfp_condition.parse("int(inputs.parameter_values['n']) > 1", "here")
    for inputs in ({}, {"n": "many"}):
        with pytest.raises(errors.InputError, match="condition"):
            kfp_condition.holds(condition, inputs)


def test_a_node_refuses_what_is_left() -> None:
    node = Node({"a": 1, "b": {"c": 2}}, "top")
    assert node.take("a") == 1
    assert node.node("b").take("c") == 2
    node.done()
    with pytest.raises(errors.UnsupportedError) as caught:
        Node({"z": 1}, "top").done()
    assert caught.value.where == "top.z"
