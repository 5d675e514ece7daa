"""What a lightweight Python component's container says: the user's source, the function, the packages.

kfp writes such a component as a shell line that installs packages and runs `kfp.dsl.executor_main` on a source text.
Here that line is read back. A container of any other shape is refused by name: it needs its image.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ondol.base import errors
from ondol.formats.kfp_node import Node

_RUNNER = "kfp.dsl.executor_main"
_OPTIONS_WITH_VALUE = ("--index-url", "--extra-index-url", "--trusted-host", "-i", "--find-links", "-f")
_INSTALL = re.compile(r"(?:python3?\s+-m\s+)?pip3?\s+install\s+(.*?)(?=&&|\n|$)", re.DOTALL)
_UNFREE = ("accelerator", "resourceAccelerator")


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


def python_code(label: str, node: Node, notes: list[str]) -> PythonCode:
    """Read a container that runs a lightweight Python component.

    :param label: the executor's name.
    :param notes: gets what the container asks for that means nothing here.
    :raises UnsupportedError: for a container that needs its image, or an accelerator.
    """
    image = node.text("image")
    command = [str(part) for part in node.items("command")]
    arguments = [str(part) for part in node.items("args")]
    if not any(_RUNNER in part for part in command) or "--function_to_execute" not in arguments:
        raise errors.UnsupportedError(
            f"executor {label!r} is a container component: image {image!r}, command {command[:3]!r}",
            where=node.path,
            way_out="Only lightweight Python components (@dsl.component) run without a container engine; "
            "write the step as one, or run the pipeline on Kubeflow.",
        )
    if not any("--component_module_path" in part for part in command):
        raise errors.UnsupportedError(
            f"executor {label!r} is a containerized component (target_image): its code is inside image {image!r}",
            where=node.path,
            way_out="Leave target_image out, so that the code is part of the compiled pipeline.",
        )
    position = arguments.index("--function_to_execute") + 1
    function = arguments[position] if position < len(arguments) else ""
    packages, kfp, options = _installs(command)
    env = {str(item["name"]): str(item.get("value", "")) for item in node.items("env")}
    _resources(label, node.node("resources"), notes)
    node.refuse("lifecycle", "is a container hook", "Leave it out, or run the pipeline on Kubeflow.")
    node.take("imagePullPolicy")
    node.done()
    if image:
        notes.append(f"base image {image!r}: the Python that runs Ondol takes its place")
    return PythonCode(function, command[-1], packages, kfp, options, image, env)


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


def _resources(label: str, node: Node, notes: list[str]) -> None:
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
    asked = [key for key in node.names() if node.take(key) not in (None, 0, 0.0, "")]
    if asked:
        notes.append(f"CPU and memory limits are not enforced on this machine ({label.removeprefix('exec-')})")
