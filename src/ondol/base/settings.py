"""Where this Ondol lives and listens. The environment is read here, once, at the edge, and nowhere else.

A project is a folder with an `ondol.yaml`; its state is in `.ondol/` beside it, or in `$ONDOL_HOME`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ondol.base import errors

PROJECT_FILE = "ondol.yaml"
HOME_FOLDER = ".ondol"
OFF = "off"
DEMO_FOLDER = "ondol-demo"
"""Where `ondol demo` puts its project; commands find it from the folder the demo was run in."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port to listen on or to call."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self}"

    @property
    def is_loopback(self) -> bool:
        return self.host in ("127.0.0.1", "localhost", "::1") or self.host.startswith("127.")


def parse_address(text: str, default_host: str = "127.0.0.1") -> Address:
    """Read `HOST:PORT`, `:PORT` or `PORT`.

    :raises UsageError: when there is no port between 0 and 65535.
    """
    host, _, port = text.strip().rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise errors.UsageError(f"{text!r} is not HOST:PORT", way_out="Write it like 127.0.0.1:5000.", code="USE-002")
    return Address(host or default_host, int(port))


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that may differ between two Ondols on one machine."""

    home: Path
    """The folder with all state; made when first needed."""

    project: Path
    """The folder that holds `ondol.yaml`, or the working folder when there is none."""

    control: Address = Address("127.0.0.1", 5000)
    """Where the control process listens: MLflow, KFP, resources, pages."""

    data: Address = Address("127.0.0.1", 8080)
    """Where the data plane listens: inference and the OpenAI-compatible gateway."""

    grpc_at: str = ""
    """Where the data plane listens for V2 over gRPC: `HOST:PORT`, `off`, or empty for the port after its own."""

    database_url: str = ""
    """`postgresql://…` to keep the state in Postgres; empty: `ondol.db` in the home."""

    artifacts: str = ""
    """`s3://…` or another fsspec URL for artifacts; empty: `artifacts/` in the home."""

    api_key: str = ""
    """Demanded from every caller when we listen on anything but loopback."""

    safe: bool = False
    """Open no model file that runs code when it is opened: no pickle."""

    propagate_headers: tuple[str, ...] = ()
    """Patterns of the names of headers that an inference graph passes on to its steps."""

    @property
    def grpc(self) -> Address | None:
        """Where gRPC is served; None when it is switched off.

        :raises UsageError: USE-002 when it is not HOST:PORT.
        """
        if self.grpc_at == OFF:
            return None
        if self.grpc_at:
            return parse_address(self.grpc_at)
        return Address(self.data.host, self.data.port + 1 if self.data.port else 0)

    @property
    def database(self) -> str:
        """The database to open: a Postgres URL or the path of the SQLite file."""
        return self.database_url or str(self.home / "ondol.db")

    @property
    def artifacts_root(self) -> str:
        return self.artifacts or str(self.home / "artifacts")

    @property
    def blobs(self) -> Path:
        return self.home / "blobs"

    @property
    def logs(self) -> Path:
        return self.home / "logs"


def _flag(name: str, text: str) -> bool:
    """Read a switch of the environment.

    :raises UsageError: when it is neither on nor off: a guard must not be off by a typing mistake.
    """
    if text.lower() not in ("", "0", "1", "false", "true", "no", "yes", "off", "on"):
        raise errors.UsageError(f"{name} is {text!r}, neither on nor off", way_out=f"{name}=1", code="USE-390")
    return text.lower() in ("1", "true", "yes", "on")


def _patterns(name: str, text: str) -> tuple[str, ...]:
    """Read regular expressions separated by commas.

    :raises UsageError: when one of them is none.
    """
    found = tuple(one.strip() for one in text.split(",") if one.strip())
    for one in found:
        try:
            re.compile(one)
        except re.error as error:
            raise errors.UsageError(
                f"{name}: {one!r} is no regular expression: {error}",
                way_out=f"{name}='Authorization,X-.*'",
                code="USE-300",
            ) from error
    return found


def find_project(start: Path) -> Path:
    """Return the nearest folder at or above `start` with an `ondol.yaml`, else the demo's below it, else `start`."""
    for folder in (start, *start.parents, start / DEMO_FOLDER):
        if (folder / PROJECT_FILE).is_file():
            return folder
    return start


def load(start: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings for the project around `start` (default: the working folder).

    :raises UsageError: when an address in the environment is not HOST:PORT, or a switch neither on nor off.
    """
    environ = os.environ if environ is None else environ
    project = find_project((start or Path.cwd()).resolve())
    home = environ.get("ONDOL_HOME", "")
    return Settings(
        home=Path(home).expanduser().resolve() if home else project / HOME_FOLDER,
        project=project,
        control=parse_address(environ.get("ONDOL_CONTROL", "127.0.0.1:5000")),
        data=parse_address(environ.get("ONDOL_DATA", "127.0.0.1:8080")),
        grpc_at=environ.get("ONDOL_GRPC", ""),
        database_url=environ.get("ONDOL_DATABASE_URL", ""),
        artifacts=environ.get("ONDOL_ARTIFACTS", ""),
        api_key=environ.get("ONDOL_API_KEY", ""),
        safe=_flag("ONDOL_SAFE", environ.get("ONDOL_SAFE", "")),
        propagate_headers=_patterns("ONDOL_PROPAGATE_HEADERS", environ.get("ONDOL_PROPAGATE_HEADERS", "")),
    )
