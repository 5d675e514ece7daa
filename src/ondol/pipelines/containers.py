"""The command line of a container component: kfp's placeholders, `Concat` and `IfPresent` filled in.

Must not run anything. What the image means on this machine is `images:` of ondol.yaml; this module asks it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ondol.base import errors
from ondol.formats.kfp_container import ContainerCode, PythonCode
from ondol.formats.kfp_graph import Component, Pipeline
from ondol.pipelines import values
from ondol.records.project import ImageSpec, Project

_HOLE = re.compile(r"\{\{\$(?P<what>[^{}]*)\}\}")
_PLACE = re.compile(r"\.(?P<side>inputs|outputs)\.(?P<kind>parameters|artifacts)\[(['\"])(?P<name>.*?)\3\](?P<rest>.*)")
_METADATA = re.compile(r"\.metadata\[(['\"])(?P<key>.*?)\1\]")


def images(pipeline: Pipeline, project: Project, source: str) -> dict[str, ImageSpec]:
    """Return what each component's image means on this machine, by component.

    A Python component whose base image no rule names runs in the running Python; a container component does not run.

    :param source: the pipeline's file, for messages.
    :raises UnsupportedError: UNS-340 naming a container's image and its place, when no rule of ondol.yaml fits.
    """
    found = {}
    for component in pipeline.components.values():
        body = component.body
        if isinstance(body, ContainerCode):
            found[component.name] = project.image(body.image, f"{source}: {body.where}")
        elif isinstance(body, PythonCode) and body.image and project.images:
            with contextlib.suppress(errors.UnsupportedError):
                found[component.name] = replace(project.image(body.image), command=())
    return found


def local_files(image: ImageSpec, project: Path) -> list[Path]:
    """Return the files of the project that an image's command names: their content is part of what runs."""
    return [path for path in (project / word for word in image.command) if path.is_file()]


def command(
    component: Component, code: ContainerCode, image: ImageSpec, job: Mapping[str, Any], facts: Mapping[str, str]
) -> list[str]:
    """Return the words to run.

    :param job: kfp's executor input: `{"inputs": …, "outputs": …}`.
    :param facts: the run's own: `pipeline_job_name` …
    :raises InputError: INP-503 for a placeholder without a value or with an unknown name.
    """
    known = _Places(component, job, facts)
    return [*image.command, *(word for part in code.command for word in _words(_structure(part), known.fill, known))]


def _structure(part: str) -> Any:
    """Return the structure that kfp writes as JSON inside a word, or the word."""
    if part.startswith(('{"Concat"', '{"IfPresent"')):
        try:
            return json.loads(part)
        except ValueError:
            return part
    return part


def _words(part: Any, fill: Callable[[str], str], known: _Places) -> list[str]:
    if isinstance(part, Sequence) and not isinstance(part, str):
        return [word for item in part for word in _words(item, fill, known)]
    if not isinstance(part, dict):
        return [fill(str(part))]
    if "Concat" in part:
        return ["".join(_words(part["Concat"], fill, known))]
    choice = part["IfPresent"]
    return _words(choice.get("Then" if known.has(choice["InputName"]) else "Else", []), fill, known)


class _Places:
    """What placeholders may name."""

    def __init__(self, component: Component, job: Mapping[str, Any], facts: Mapping[str, str]) -> None:
        self._component, self._job, self._facts = component, job, facts
        inputs = job.get("inputs", {})
        self._parameters: dict[str, Any] = inputs.get("parameterValues", {})
        self._artifacts: dict[str, Any] = inputs.get("artifacts", {})

    def has(self, name: str) -> bool:
        """Whether an input was given: a parameter, or an artifact."""
        return name in self._parameters or name in self._artifacts

    def fill(self, text: str) -> str:
        """Replace every placeholder in a word."""
        return _HOLE.sub(lambda hole: self._value(hole.group("what")), text)

    def _value(self, what: str) -> str:
        if not what:
            return json.dumps(self._job, ensure_ascii=False)
        if what.removeprefix(".") in self._facts:
            return self._facts[what.removeprefix(".")]
        place = _PLACE.fullmatch(what)
        if place is None:
            raise self._unknown(what)
        name, rest = place.group("name"), place.group("rest")
        if place.group("kind") == "parameters":
            return self._parameter(place.group("side"), name, rest, what)
        side = self._artifacts if place.group("side") == "inputs" else self._job["outputs"].get("artifacts", {})
        return self._artifact(side, name, rest, what)

    def _parameter(self, side: str, name: str, rest: str, what: str) -> str:
        if side == "outputs":
            slot = self._job["outputs"].get("parameters", {}).get(name)
            if slot is None or rest != ".output_file":
                raise self._unknown(what)
            return str(slot["outputFile"])
        if rest or name not in self._parameters:
            raise self._unknown(what)
        return values.as_text(self._parameters[name])

    def _artifact(self, side: Mapping[str, Any], name: str, rest: str, what: str) -> str:
        found = side.get(name, {}).get("artifacts")
        if not found:
            raise self._unknown(what)
        if not rest:
            return json.dumps(found, ensure_ascii=False)
        if rest in (".uri", ".path"):
            return str(found[0]["uri"])
        if rest == ".metadata":
            return json.dumps(found[0]["metadata"], ensure_ascii=False)
        if (key := _METADATA.fullmatch(rest)) and key.group("key") in found[0]["metadata"]:
            return values.as_text(found[0]["metadata"][key.group("key")])
        raise self._unknown(what)

    def _unknown(self, what: str) -> errors.InputError:
        return errors.InputError(
            f"the placeholder {'{{$' + what + '}}'!r} has no value",
            where=self._component.name,
            way_out="Give the input it names, or write it inside dsl.IfPresentPlaceholder.",
            code="INP-503",
        )
