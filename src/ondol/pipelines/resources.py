"""What a step asks for in processors and memory: slots it takes while it runs, and where it is stopped.

A request for processors is a weight: the step waits until that many slots are free (at most all of them). A limit on
memory ends the step when its processes together hold more. Must not measure anything.
Quantities as Kubernetes writes them (`500m`, `1.5`, `256Mi`, `2G`); kfp's older fields are cores and 10^9 bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ondol.base import errors
from ondol.pipelines import values

_QUANTITY = re.compile(r"\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)\s*([munkKMGTPE]i?)?B?\s*")
_UNITS = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3}
_UNITS |= {sign: 1000.0**power for power, sign in enumerate(("k", "M", "G", "T", "P", "E"), 1)}
_UNITS |= {sign: 1024.0**power for power, sign in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_UNITS["K"] = 1000.0


@dataclass(frozen=True, slots=True)
class Resources:
    """What a step takes."""

    slots: int = 1
    memory: int = 0
    """Bytes its processes may hold together; 0: any."""


def of(asked: Mapping[str, Any], parameters: Mapping[str, Any], where: str) -> Resources:
    """Read what a step asks for.

    :param asked: fields of the container's `resources`; texts may name input parameters.
    :param parameters: the step's inputs.
    :raises InputError: INP-502 for a quantity that is none.
    """
    filled = {name: values.fill(value, parameters, {}) for name, value in asked.items()}
    cores = _first(filled, ("resourceCpuRequest", "cpuRequest", "resourceCpuLimit", "cpuLimit"), 1.0, where)
    limit = _first(filled, ("resourceMemoryLimit", "memoryLimit"), 1e9, where)
    return Resources(max(1, math.ceil(cores)), int(limit))


def _first(filled: Mapping[str, Any], names: tuple[str, ...], unit: float, where: str) -> float:
    for name in names:
        value = filled.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value) * unit
        if isinstance(value, str) and value.strip():
            return quantity(value, f"{where}: {name}")
    return 0.0


def quantity(text: str, where: str) -> float:
    """Read a quantity of Kubernetes.

    :raises InputError: INP-502 when it is none.
    """
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise errors.InputError(
            f"{text!r} is no quantity", where=where, way_out="Write it like 500m, 2, 256Mi or 4G.", code="INP-502"
        )
    return float(found.group(1)) * _UNITS[found.group(2) or ""]
