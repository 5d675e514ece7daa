"""A kubeconfig as kubectl reads it: which server, whose certificate, which credentials, which namespace.

Source: Kubernetes' `client.authentication.k8s.io/v1` and the kubeconfig format. What is not honoured (auth providers,
proxies) is refused by name. Credentials stay in memory.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import yaml

from ondol.base import errors

Json = dict[str, Any]
_EXEC_SECONDS = 60.0
_CLUSTER = ("server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify")
_CLUSTER_NAMES = ("tls-server-name", "extensions", "disable-compression")
_USER = ("token", "tokenFile", "username", "password", "client-certificate", "client-certificate-data", "client-key")
_USER_MORE = ("client-key-data", "exec", "extensions")


@dataclass(frozen=True, slots=True)
class Server:
    """A server to speak to and how."""

    url: str
    namespace: str = "default"
    context: str = ""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    verify: ssl.SSLContext | bool = field(default=True, repr=False)

    def client(self) -> httpx.Client:
        """Return an HTTP client of the server."""
        local = "://127.0.0.1" in self.url or "://localhost" in self.url or "://[::1]" in self.url
        return httpx.Client(
            base_url=self.url,
            headers=self.headers,
            verify=self.verify,
            timeout=30.0,
            trust_env=not local,  # a proxy has no business on loopback
        )


def path(given: str = "") -> Path:
    """Return the kubeconfig to read: the given one, `$KUBECONFIG`, or `~/.kube/config`."""
    chosen = given or os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(chosen).expanduser() if chosen else Path.home() / ".kube" / "config"


def load(file: Path, context: str = "") -> Server:
    """Return the server of a context, of the current one when none is named.

    :raises InputError: when the file or the context is missing, or has what is not honoured.
    """
    config = _read(file)
    name = context or str(config.get("current-context") or "")
    chosen = _named(config, "contexts", "context", name, file)
    cluster = _named(config, "clusters", "cluster", str(chosen.get("cluster")), file)
    user = _named(config, "users", "user", str(chosen["user"]), file) if chosen.get("user") else {}
    _refuse_others(cluster, (*_CLUSTER, *_CLUSTER_NAMES), file, "cluster")
    _refuse_others(user, (*_USER, *_USER_MORE), file, "user")
    if isinstance(user.get("exec"), dict):
        user = {**user, **_executed(user["exec"], file)}
    url = str(cluster.get("server", "")).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise _wrong(f"the cluster's server is {url!r}", file)
    url, user = _credentials_in(url, user)
    verify = _tls(cluster, user, file.parent) if url.startswith("https://") else True
    return Server(url, str(chosen.get("namespace") or "default"), name, _headers(user, file.parent), verify)


def _credentials_in(url: str, user: Json) -> tuple[str, Json]:
    """Return the URL without the name and password it may have, and the user with them unless it has a token."""
    parts = urlsplit(url)
    if not parts.username:
        return url, user
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    pair = {"username": unquote(parts.username), "password": unquote(parts.password or "")}
    return plain, {**pair, **user}


def _read(file: Path) -> Json:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _wrong(f"cannot read the kubeconfig: {error}", file) from error
    if not isinstance(found, dict):
        raise _wrong("the kubeconfig is not a mapping", file)
    return found


def _wrong(message: str, file: Path) -> errors.InputError:
    way_out = "Name one that works: --kubeconfig PATH --context NAME; `kubectl config get-contexts` lists them."
    return errors.InputError(message, where=str(file), way_out=way_out, code="INP-320")


def _named(config: Json, part: str, inner: str, name: str, file: Path) -> Json:
    entries = config.get(part) or []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("name") == name:
            return entry.get(inner) or {}
    raise _wrong(f"no {inner} {name!r} in the kubeconfig", file)


def _refuse_others(value: Json, known: tuple[str, ...], file: Path, what: str) -> None:
    for key in value:
        if key not in known:
            raise errors.UnsupportedError(
                f"{what} option {key!r} is not honoured",
                where=str(file),
                way_out="Use a token, a client certificate or an exec plugin, without a proxy; or kubectl itself.",
                code="UNS-320",
            )


def _executed(plugin: Json, file: Path) -> Json:
    """Run a credential plugin and return what it says, in the words of a kubeconfig's user."""
    env = {str(one["name"]): str(one["value"]) for one in plugin.get("env") or []}
    asked = {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential", "spec": {"interactive": False}}
    command = [str(plugin.get("command")), *map(str, plugin.get("args") or [])]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **env, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
            capture_output=True,
            check=True,
            timeout=_EXEC_SECONDS,
        )
        status = json.loads(done.stdout)["status"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        raise _wrong(f"the credential plugin {command[0]!r} failed: {error}", file) from error
    found = {"token": status.get("token")}
    for key, said in (("client-certificate-data", "clientCertificateData"), ("client-key-data", "clientKeyData")):
        if status.get(said):
            found[key] = base64.b64encode(str(status[said]).encode()).decode()
    return {key: value for key, value in found.items() if value}


def _headers(user: Json, folder: Path) -> dict[str, str]:
    token = user.get("token")
    if not token and user.get("tokenFile"):
        token = (folder / str(user["tokenFile"])).read_text(encoding="utf-8").strip()
    if token:
        return {"Authorization": f"Bearer {token}"}
    if user.get("username"):
        pair = f"{user['username']}:{user.get('password', '')}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}


def _tls(cluster: Json, user: Json, folder: Path) -> ssl.SSLContext:
    found = ssl.create_default_context()
    authority = _content(cluster, "certificate-authority", folder)
    if authority:
        found = ssl.create_default_context(cadata=authority.decode())
    if cluster.get("insecure-skip-tls-verify"):
        found.check_hostname = False
        found.verify_mode = ssl.CERT_NONE
    certificate, key = _content(user, "client-certificate", folder), _content(user, "client-key", folder)
    if certificate and key:
        # ssl reads certificates from files only; this one is gone before anybody else could open it.
        with tempfile.NamedTemporaryFile("wb") as pair:
            pair.write(certificate + b"\n" + key)
            pair.flush()
            found.load_cert_chain(pair.name)
    return found


def _content(options: Json, name: str, folder: Path) -> bytes:
    """Return an option that is a file or, as `NAME-data`, the file's bytes in base64."""
    try:
        if data := options.get(f"{name}-data"):
            return base64.b64decode(str(data), validate=True)
        return (folder / str(options[name])).read_bytes() if options.get(name) else b""
    except (OSError, binascii.Error) as error:
        raise errors.InputError(f"cannot read {name!r}: {error}", where=str(folder), code="INP-320") from error
