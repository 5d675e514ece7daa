"""What a step's container says: a lightweight Python component's source, function and packages, or a plain command.

kfp writes a lightweight component as a shell line that installs packages and runs `kfp.dsl.executor_main` on a source
text. Here that line is read back. A container of any other shape is its command, which means something only where its
image does: `images:` of ondol.yaml says that, elsewhere.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ondol.base import errors
from ondol.formats.kfp_node import Node
from ondol.formats.kfp_platform import NOTHING, Platform

_RUNNER = "kfp.dsl.executor_main"
_OPTIONS_WITH_VALUE = ("--index-url", "--extra-index-url", "--trusted-host", "-i", "--find-links", "-f")
_INSTALL = re.compile(r"(?:python3?\s+-m\s+)?pip3?\s+install\s+(.*?)(?=&&|\n|$)", re.DOTALL)
_UNFREE = ("accelerator", "resourceAccelerator")
_ASKED = (
    *("cpuRequest", "cpuLimit", "memoryRequest", "memoryLimit"),
    *("resourceCpuRequest", "resourceCpuLimit", "resourceMemoryRequest", "resourceMemoryLimit"),
)


@dataclass(frozen=True, slots=True)
class PythonCode:
    """A lightweight Python component."""

    function: str
    source: str
    """The module that holds the function, as kfp embeds it: imports first, then the function."""

    packages: tuple[str, ...] = ()
    """What the user asks for in `packages_to_install`."""

    kfp: str = ""
    """The kfp requirement the compiler wrote (`kfp==2.17.0`); empty: none."""

    pip_options: tuple[str, ...] = ()
    image: str = ""
    """The base image; on this machine its place is taken by the running Python."""

    env: dict[str, str] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    """CPU and memory asked for, as the file says it: `cpuRequest`, `memoryLimit`, `resourceMemoryLimit` …"""

    platform: Platform = NOTHING


@dataclass(frozen=True, slots=True)
class ContainerCode:
    """A container component: the command of an image."""

    image: str
    command: tuple[str, ...]
    """Entrypoint and arguments, with kfp's placeholders in them."""

    env: dict[str, str] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    platform: Platform = NOTHING
    where: str = ""
    """Its place in the file, for messages."""


Code = PythonCode | ContainerCode


def read(label: str, node: Node, platform: Platform) -> Code:
    """Read the container of an executor.

    :param label: the executor's name.
    :param platform: what the platform document asks for it.
    :raises UnsupportedError: for code that is inside an image, an accelerator, or a container hook.
    """
    image = node.text("image")
    command = [str(part) for part in node.items("command")]
    arguments = [str(part) for part in node.items("args")]
    env = {str(item["name"]): str(item.get("value", "")) for item in node.items("env")}
    resources = _resources(label, node.node("resources"))
    node.refuse("lifecycle", "is a container hook", "Leave it out, or run the pipeline on Kubeflow.")
    node.take("imagePullPolicy")
    node.done()
    if not any(_RUNNER in part for part in command) or "--function_to_execute" not in arguments:
        return ContainerCode(image, (*command, *arguments), env, resources, platform, node.path)
    if not any("--component_module_path" in part for part in command):
        raise errors.UnsupportedError(
            f"executor {label!r} is a containerized component (target_image): its code is inside image {image!r}",
            where=node.path,
            way_out="Leave target_image out, so that the code is part of the compiled pipeline.",
        )
    position = arguments.index("--function_to_execute") + 1
    function = arguments[position] if position < len(arguments) else ""
    packages, kfp, options = _installs(command)
    return PythonCode(function, command[-1], packages, kfp, options, image, env, resources, platform)


def _installs(command: list[str]) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    packages: list[str] = []
    options: dict[tuple[str, ...], None] = {}  # in order, each once
    kfp = ""
    script = "\n".join(part for part in command[:-1] if "pip install" in part)
    for match in _INSTALL.finditer(script):
        words = iter(shlex.split(match.group(1)))
        for word in words:
            if word in _OPTIONS_WITH_VALUE:
                value = next(words, "")
                host = urlsplit(value).netloc or value  # people give addresses where pip wants hosts
                options[word, host if word == "--trusted-host" else value] = None
            elif word.startswith("-"):
                options |= {(word,): None} if "=" in word else {}
            elif re.match(r"kfp\s*(\[.*\])?\s*(==|@|$)", word):
                kfp = word
            elif not word.startswith("typing-extensions>=3.7.4"):  # kfp's own, for Python 3.8
                packages.append(word)
    return tuple(dict.fromkeys(packages)), kfp, tuple(word for option in options for word in option)


def _resources(label: str, node: Node) -> dict[str, Any]:
    for key in _UNFREE:
        accelerator = node.take(key)
        if not isinstance(accelerator, dict):
            continue
        if str(accelerator.get("count", accelerator.get("resourceCount", "1"))) != "0":
            kind = accelerator.get("type") or accelerator.get("resourceType")
            raise errors.UnsupportedError(
                f"executor {label!r} asks for an accelerator {kind!r}",
                where=node.at(key),
                way_out="Leave set_accelerator_type/limit out for a run on this machine.",
            )
    asked = {key: node.take(key) for key in _ASKED}
    node.done()
    return {key: value for key, value in asked.items() if value not in (None, 0, 0.0, "", "0")}
