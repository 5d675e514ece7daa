"""The kubeconfig of this home: how `kubectl` and Kubernetes' clients find the resource API, and with which key."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote

from ondol.base.settings import Address, Settings

FILE = "kubeconfig"
CONTEXT = "ondol"
PATH = "/k8s"
"""Below the control process' address."""


def path_of(home: Path) -> Path:
    """Return where the kubeconfig of a home is."""
    return home / FILE


def server_of(control: Address) -> str:
    """Return the URL of the resource API for clients on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(control.host, control.host)
    return f"http://{host}:{control.port}{PATH}"


def write(path: Path, server: str, token: str) -> None:
    """Write a kubeconfig, whole or not at all, readable by its owner only: it may hold a key.

    The key stands there twice. Python's clients send the token; kubectl sends none without TLS, but does send what
    stands in the URL.
    """
    if token:
        scheme, _, rest = server.partition("://")
        server = f"{scheme}://{CONTEXT}:{quote(token, safe='')}@{rest}"
    user = f"{{token: {json.dumps(token)}}}" if token else "{}"
    text = f"""\
# Written by `ondol up`. Use it with: kubectl --kubeconfig {path}
apiVersion: v1
kind: Config
current-context: {CONTEXT}
clusters:
- name: {CONTEXT}
  cluster: {{server: {json.dumps(server)}}}
users:
- name: {CONTEXT}
  user: {user}
contexts:
- name: {CONTEXT}
  context: {{cluster: {CONTEXT}, user: {CONTEXT}, namespace: default}}
"""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def write_for(settings: Settings) -> Path:
    """Write the kubeconfig of a home whose control process listens at the settings' address."""
    path = path_of(settings.home)
    token = "" if settings.control.is_loopback else settings.api_key
    write(path, server_of(settings.control), token)
    return path
