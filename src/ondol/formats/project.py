"""`ondol.yaml` to `Project`. Strict: an unknown key is an error that names it and the nearest known one.

Must not touch the files the project names.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from ondol.base import duration, errors, settings
from ondol.formats import cron
from ondol.records import codec
from ondol.records.project import MonitoringSpec, MonitorSpec, Project, QuestionsSpec, RetrainSpec
from ondol.records.rollout import STRATEGIES, JudgePolicy
from ondol.records.signal import TRIGGERS


def load(folder: Path) -> Project:
    """Read the project in a folder.

    :raises NotFoundError: when there is no `ondol.yaml`.
    :raises InputError: naming the line or the field that is wrong.
    """
    path = folder / settings.PROJECT_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise errors.NotFoundError(
            f"no {settings.PROJECT_FILE} in {str(folder)!r} or above",
            way_out="`ondol init my-project --data my.csv --target column` makes one; `ondol demo` shows one.",
            code="NOF-010",
        ) from None
    return parse(text, where=str(path))


def parse(text: str, where: str = settings.PROJECT_FILE) -> Project:
    """Read the text of an `ondol.yaml`.

    :raises InputError: naming the line or the field that is wrong.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise errors.InputError(f"not YAML: {error}", where=where, code="INP-010") from error
    if not isinstance(value, dict):
        raise errors.InputError(
            "an ondol.yaml is a mapping", where=where, way_out="Begin it with `name: my-project`.", code="INP-010"
        )
    value = _with_short_forms(value, where)
    _refuse_unknown(value, Project, "", where)
    try:
        project = codec.typed(value, Project)
    except errors.InputError as error:
        raise errors.InputError(error.message, where=where, code="INP-011") from error
    _check_retrain(project.retrain, where)
    _check_monitoring(project.monitoring, where)
    for name, model in project.models.items():
        _check_season(model.monitor, project.monitoring, f"{where}: models.{name}.monitor")
    for name, application in project.applications.items():
        _check_questions(application.monitor, f"{where}: applications.{name}.monitor")
    _refuse_what_has_no_effect(project, where)
    return project


def _check_monitoring(monitoring: MonitoringSpec, where: str) -> None:
    for name in ("sample", "scores"):
        if not 0 <= getattr(monitoring, name) <= 1:
            said = f"monitoring.{name} is {getattr(monitoring, name)!r}"
            raise errors.InputError(said, where=where, way_out="A share from 0 to 1.", code="INP-455")
    recent, retention, *_ = (
        duration.seconds(getattr(monitoring, name), f"{where}: monitoring.{name}")
        for name in ("recent", "retention", "traces", "snapshots")
    )
    if recent > retention:
        raise errors.InputError(
            f"monitoring.recent {monitoring.recent!r} is longer than retention {monitoring.retention!r}",
            where=where,
            code="INP-455",
        )


def _check_questions(monitor: QuestionsSpec, where: str) -> None:
    wrong = {
        "window": (monitor.window, monitor.window == 0 or 30 <= monitor.window <= 5000, "0 (no watch), or 30 to 5000"),
        "alpha": (monitor.alpha, 0.001 <= monitor.alpha < 1, "0.001 or more, below 1: 999 exchanges are tried"),
        "effect": (monitor.effect, 0 <= monitor.effect <= 1, "from 0 to 1"),
        "blocks": (monitor.blocks, monitor.blocks == 1 or 5 <= monitor.blocks <= 500, "1, or 5 to 500"),
    }
    for name, (value, fits, way_out) in wrong.items():
        if not fits:
            raise errors.InputError(f"{name} is {value!r}", where=where, way_out=f"{way_out}.", code="INP-590")


def _check_season(monitor: MonitorSpec, monitoring: MonitoringSpec, where: str) -> None:
    if (monitor.reference == "season") != bool(monitor.season):
        raise errors.InputError(
            "reference: season and season belong together", where=where, code="INP-455",
            way_out="Write `monitor: {reference: season, season: 7d}`.",
        )  # fmt: skip
    if monitor.season and monitor.window > 20_000:
        raise errors.UnsupportedError(
            f"a window of {monitor.window:,} requests is counted as it comes and not compared with a season",
            where=where,
            way_out="Use a window of 20,000 requests at most, or reference: training or last-good.",
            code="UNS-591",
        )
    if monitor.season and duration.seconds(monitor.season, where) >= duration.seconds(monitoring.retention):
        raise errors.InputError(
            f"season {monitor.season!r} is longer than requests are kept ({monitoring.retention})", where=where,
            way_out="Set monitoring.retention to more than a season.", code="INP-455",
        )  # fmt: skip


def _check_retrain(retrain: RetrainSpec, where: str) -> None:
    """Read everything once that the conductor will need.

    :raises InputError: naming what it could not use.
    """
    for trigger in retrain.on:
        if cron.is_cron(trigger):
            cron.parse(trigger, retrain.timezone, f"{where}: retrain.on")
        elif trigger not in TRIGGERS:
            raise errors.InputError(
                f"retrain.on: nothing is called {trigger!r}", where=where, code="INP-453",
                way_out=f"There are {', '.join(TRIGGERS)} and cron expressions such as '0 3 * * *'.",
            )  # fmt: skip
    for name in ("debounce", "cool_down", "back_off"):
        duration.seconds(getattr(retrain, name), f"{where}: retrain.{name}")
    if retrain.attempts < 1:
        raise errors.InputError(f"retrain.attempts is {retrain.attempts}", where=where, code="INP-453")
    if ("data" in retrain.on) != bool(retrain.data):
        raise errors.InputError(
            "retrain.on: data and retrain.data belong together", where=where, code="INP-453",
            way_out="Write `retrain: {on: [data], data: [flights.csv]}`.",
        )  # fmt: skip


def _refuse_what_has_no_effect(project: Project, where: str) -> None:
    """What the file says and nobody would honour is refused, never ignored."""
    for pattern, image in project.images.items():
        if image.command and (image.packages or image.python):
            raise errors.InputError(
                f"images.{pattern}: a local `command` runs as it is; `packages` and `python` have no effect on it",
                where=where,
                way_out="Write either `command`, or `packages` and `python`.",
                code="INP-011",
            )
    if project.retrain.pipeline and any(
        project.retrain.pipeline != model.pipeline for model in project.models.values()
    ):
        raise errors.UnsupportedError(
            f"retrain.pipeline {project.retrain.pipeline!r} is another than the models' own, which is what is run",
            where=where,
            way_out="Leave it out: a retraining runs the model's `pipeline`.",
            code="UNS-014",
        )


def rollout_policy(text: str, where: str) -> JudgePolicy:
    """Read `{strategy, steps, judge: {…}}` from the text of an annotation.

    :raises InputError: naming the field that is wrong.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise errors.InputError(f"not YAML: {error}", where=where, code="INP-010") from error
    flat = _flat_rollout(value if value is not None else {}, where)
    _refuse_unknown(flat, JudgePolicy, "", where)
    try:
        return codec.typed(flat, JudgePolicy)
    except errors.InputError as error:
        raise errors.InputError(error.message, where=where, code="INP-011") from error


def _flat_rollout(value: Any, where: str) -> dict[str, Any]:
    """`{strategy, steps, judge: {metrics, …}}` as people write it becomes one policy, with what the strategy means."""
    if not isinstance(value, dict) or not isinstance(value.get("judge", {}), dict):
        raise errors.InputError("`rollout` is a mapping with `steps` and `judge`", where=where, code="INP-011")
    flat = {**{key: item for key, item in value.items() if key != "judge"}, **value.get("judge", {})}
    return {**STRATEGIES.get(flat.get("strategy", "canary"), {}), **flat}


def _with_short_forms(value: dict[str, Any], where: str) -> dict[str, Any]:
    """`indexes: {docs: docs/}` and `retrain: {on: drift}` are allowed; YAML 1.1 also reads a bare `on` as true."""
    value = dict(value)
    owners = [value, *_mappings(value.get("models")), *_mappings(value.get("applications"))]
    for owner in owners:
        if "rollout" in owner:
            owner["rollout"] = _flat_rollout(owner["rollout"], where)
    if isinstance(indexes := value.get("indexes"), dict):
        value["indexes"] = {name: {"path": one} if isinstance(one, str) else one for name, one in indexes.items()}
    if isinstance(retrain := value.get("retrain"), dict):
        retrain = {("on" if key is True else key): item for key, item in retrain.items()}
        for key in ("on", "data"):
            if isinstance(retrain.get(key), str):
                retrain[key] = [retrain[key]]
        value["retrain"] = retrain
    if isinstance(images := value.get("images"), dict):
        value["images"] = {str(pattern): {} if one == "python" else one for pattern, one in images.items()}
    return value


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [one for one in value.values() if isinstance(one, dict)] if isinstance(value, dict) else []


def _refuse_unknown(value: Any, kind: Any, path: str, where: str) -> None:
    """Walk the value beside its record type and refuse the first key the type does not have."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        kind = next((one for one in arguments if one is not type(None)), kind)
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_unknown(item, arguments[0], f"{path}[{index}]", where)
    elif origin is dict and isinstance(value, dict):
        for key, item in value.items():
            _refuse_unknown(item, arguments[1], f"{path}.{key}".lstrip("."), where)
    elif dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        for key, item in value.items():
            here = f"{path}.{key}".lstrip(".")
            if key not in hints:
                near = difflib.get_close_matches(str(key), hints, n=1)
                raise errors.UnsupportedError(
                    f"unknown key {here!r}",
                    where=where,
                    way_out=f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(sorted(hints))}.",
                    code="UNS-010",
                )
            _refuse_unknown(item, hints[key], here, where)
