"""`ondol init`: an ordinary project out of somebody's own table. Reads the table, decides, renders the templates.

Must not train or start anything, and must not write into a folder that has something in it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ondol.base import errors
from ondol.data import profile, schema, tables

if TYPE_CHECKING:
    import pandas as pd

Task = Literal["binary", "multiclass", "regression"]
_TEMPLATES = Path(__file__).resolve().parent.parent / "templates" / "project"
_FILES = ("pipeline.py", "serving.yaml", "ondol.yaml", "README.md", "gitignore")
_MIN_ROWS = 60
_MIN_CLASS = 8  # rows of the rarest class: a quarter of them is the test set's
_MAX_CLASSES = 50
_INTEGER_CLASSES = 10  # an integer target with at most this many values is a class
_TREES_FROM = 1000  # rows from which boosted trees usually beat a linear model
_POSITIVE = {"1", "true", "yes", "y", "positive", "예", "네", "양성", "참", "있음", "이탈", "해지"}
_NAMES_OF_ROWS = {"id", "index", "no", "key", "unnamed", "번호"}
_TEST_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """What the project will be."""

    name: str
    """Of pipeline, registered model and service: lower-case letters, digits and dashes, as Kubernetes demands."""

    task: Task
    target: str
    target_type: Literal["integer", "text", "number"]
    positive: str | int | None
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    """Columns that the model does not get, with the reason."""

    rows: int
    """With a target."""

    estimator: Literal["trees", "linear"]
    notes: tuple[str, ...] = ()


def make(folder: Path, data: Path, target: str) -> Plan:
    """Write a project into a new or empty folder and return its plan.

    :raises ConflictError: when the folder has something in it.
    :raises NotFoundError: when there is no such table.
    :raises InputError: when the table cannot be read, or the target cannot be learned from it.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise errors.ConflictError(
            f"{str(folder)!r} exists and is not empty", way_out="Name a new folder.", code="CON-031"
        )
    frame = tables.read(data)
    plan = planned(frame, target, folder.name, where=str(data))
    half = folder.with_name(f".{folder.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    try:
        _write(half, plan, frame, data)
        if folder.exists():
            folder.rmdir()
        half.rename(folder)  # all or nothing
    except OSError as error:
        shutil.rmtree(half, ignore_errors=True)
        raise errors.InputError(
            f"cannot write {str(folder)!r}: {error.strerror or error}", way_out="Name another folder.", code="INP-070"
        ) from error
    return plan


def planned(frame: pd.DataFrame, target: str, name: str, where: str = "") -> Plan:
    """Decide what to learn from which columns.

    :raises InputError: when there is no such column, or it cannot be learned from these rows.
    """
    tables.need_columns(frame, [target], where=where)
    labelled = frame[frame[target].notna()]
    if len(labelled) < _MIN_ROWS:
        raise errors.InputError(
            f"{len(labelled)} rows have a value in {target!r}; a model and its test need {_MIN_ROWS}",
            where=where,
            way_out="Bring more rows.",
            code="INP-071",
        )
    task, target_type = _task(labelled[target], target, where)
    numbers, categories, left_out = _features(labelled, target)
    if not numbers and not categories:
        reasons = "; ".join(f"{column}: {reason}" for column, reason in left_out)
        raise errors.InputError(f"no column is left to predict {target!r} from: {reasons}", where=where, code="INP-073")
    notes = [str(note) for note in frame.attrs.get("notes", ())]
    if len(labelled) < len(frame):
        notes.append(f"{len(frame) - len(labelled):,} rows have no {target!r} and are left out")
    described = profile.profile(labelled[[*numbers, *categories, target]], target=target)
    notes.extend(note for note in described.notes if "nearly the same as" in note)
    return Plan(
        slug(name),
        task,
        target,
        target_type,
        _positive(labelled[target]) if task == "binary" else None,
        tuple(numbers),
        tuple(categories),
        tuple(left_out),
        len(labelled),
        "trees" if len(labelled) >= _TREES_FROM else "linear",
        tuple(notes),
    )


def slug(name: str) -> str:
    """Return a name that Kubernetes accepts; one without Latin letters gets a stable one of its own."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    if not text or not text[0].isalpha():
        text = f"model-{text}" if text else f"model-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return text


def _task(truth: pd.Series[Any], target: str, where: str) -> tuple[Task, Literal["integer", "text", "number"]]:
    kind = schema.kind_of(truth)
    counts = truth.astype(str).value_counts()
    if len(counts) < 2:
        raise errors.InputError(
            f"every row has the same {target!r}: {counts.index[0]!r}; there is nothing to learn",
            where=where,
            way_out="Name another target, or bring rows with another value.",
            code="INP-072",
        )
    numeric = kind in ("integer", "number")
    if kind == "number" or (kind == "integer" and len(counts) > _INTEGER_CLASSES):
        return "regression", "number"
    if kind == "datetime" or len(counts) > _MAX_CLASSES:
        raise errors.InputError(
            f"{target!r} has {len(counts)} different values that are not numbers: neither classes nor a quantity",
            where=where,
            way_out=f"A class has at most {_MAX_CLASSES} values: {tables.shown(counts.index, 4)} …",
            code="INP-072",
        )
    rarest, rows = str(counts.index[-1]), int(counts.iloc[-1])
    if rows < _MIN_CLASS:
        raise errors.InputError(
            f"{target!r} is {rarest!r} in {rows} rows only; a class needs {_MIN_CLASS} to be learned and tested",
            where=where,
            way_out="Remove those rows, merge the class with another, or bring more rows of it.",
            code="INP-072",
        )
    return ("binary" if len(counts) == 2 else "multiclass"), ("integer" if numeric else "text")


def _features(labelled: pd.DataFrame, target: str) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    numbers, categories, left_out = [], [], []
    for name in (str(column) for column in labelled.columns):
        if name == target:
            continue
        column = labelled[name]
        kind, distinct, present = schema.kind_of(column), int(column.nunique()), int(column.notna().sum())
        if distinct <= 1:
            left_out.append((name, "it has no second value"))
        elif kind == "datetime":
            left_out.append((name, "a time; make numbers of it (hour, weekday, age) if it matters"))
        elif _names_rows(name, kind, column, distinct, present):
            left_out.append((name, "it names rows: nearly every value is different"))
        elif kind in ("integer", "number", "boolean"):
            numbers.append(name)
        else:
            categories.append(name)
    return numbers, categories, left_out


def _names_rows(name: str, kind: schema.Kind, column: pd.Series[Any], distinct: int, present: int) -> bool:
    if kind == "text":
        return distinct > 0.5 * present
    words = re.split(r"[^a-z가-힣]+", name.lower())
    called = bool({"id", "index", "번호", "no", "unnamed", "key"} & set(words)) or name.lower().endswith(
        ("_id", "번호")
    )
    counted = kind == "integer" and distinct == present and bool((column.dropna().diff().dropna() == 1).all())
    return kind == "integer" and distinct == present and (called or counted)


def _positive(truth: pd.Series[Any]) -> str | int:
    """Return the class whose chance is reported: one that says yes, else the rarer one."""
    counts = truth.value_counts()
    for value in counts.index:
        if str(value).strip().lower().removesuffix(".0") in _POSITIVE:
            return _plain(value)
    return _plain(counts.index[-1])


def _plain(value: object) -> str | int:
    text = str(value)
    return int(float(text)) if re.fullmatch(r"-?\d+(\.0)?", text) else text


def _write(folder: Path, plan: Plan, frame: pd.DataFrame, data: Path) -> None:
    (folder / "data").mkdir(parents=True)
    kept = _keep_table(folder / "data", frame, data)
    values = values_of(plan, frame, data.name, f"data/{kept.name}")
    for name in _FILES:
        target = folder / (".gitignore" if name == "gitignore" else name)
        target.write_text(render(name, values), encoding="utf-8")
    inferred = schema.infer(frame)
    columns = dict(inferred.columns)
    columns[plan.target] = replace(columns[plan.target], description="the target")
    head = f"# Inferred from {data.name} by `ondol init`: edit it. Ranges leave room for the next table.\n"
    (folder / "schema.yaml").write_text(schema.dump(replace(inferred, columns=columns), head), encoding="utf-8")
    row = frame[[*plan.numbers, *plan.categories]].dropna().head(1)
    row = row if len(row) else frame[[*plan.numbers, *plan.categories]].head(1)
    example = {"instances": [_json_row(row.iloc[0].to_dict(), plan)]}
    (folder / "example.json").write_text(json.dumps(example, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _json_row(row: dict[Any, Any], plan: Plan) -> dict[str, Any]:
    import pandas as pd

    return {
        str(name): None if pd.isna(value) else (float(value) if name in plan.numbers else str(value))
        for name, value in row.items()
    }


def _keep_table(folder: Path, frame: pd.DataFrame, data: Path) -> Path:
    """Copy the table; one that needed guessing (encoding, delimiter) is written again as plain CSV."""
    with data.open("rb") as file:
        parquet = file.read(4) == b"PAR1"
    target = folder / ("table.parquet" if parquet else "table.csv")
    if not frame.attrs.get("plain", True):
        frame.to_csv(target, index=False)
    else:
        shutil.copyfile(data, target)
    return target


def values_of(plan: Plan, frame: pd.DataFrame, source: str, data: str) -> dict[str, Any]:
    """Return what the templates ask for. `source`: the reader's file; `data`: its copy, relative to the project."""
    test_rows = int(plan.rows * _TEST_SHARE)
    spread = float(frame[plan.target].std()) if plan.task == "regression" else 0.0
    slices = [name for name in plan.categories if 2 <= frame[name].nunique() <= 12][:2]
    return {
        "name": plan.name,
        "task": plan.task,
        "what": f"Predicts {plan.target!r} from {len(plan.numbers) + len(plan.categories)} columns.",
        "source": source,
        "target": plan.target,
        "target_type": plan.target_type,
        "positive": plan.positive,
        "numbers": list(plan.numbers),
        "categories": list(plan.categories),
        "left_out": plan.left_out,
        "data": data,
        "estimator": plan.estimator,
        "rows": f"{plan.rows:,}",
        "features": len(plan.numbers) + len(plan.categories),
        "slices": slices,
        "primary": "absolute_error" if plan.task == "regression" else "log_loss",
        "margin": float(f"{spread * 0.01:.3g}") if plan.task == "regression" else 0.01,
        "spread": float(f"{spread:.3g}"),
        "min_samples": max(10, min(200, test_rows)),
        "metrics": {
            "binary": ["roc_auc", "log_loss", "brier", "calibration_error", "accuracy"],
            "multiclass": ["log_loss", "brier", "accuracy", "f1"],
            "regression": ["mae", "rmse", "r2"],
        }[plan.task],
    }


def render(name: str, values: dict[str, Any]) -> str:
    """Return the text of one of the project's files."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # these are Python, YAML and Markdown files
    )
    environment.filters["literal"] = _literal
    environment.filters["yaml"] = _yaml
    environment.filters["doc"] = _doc
    return environment.get_template(f"{name}.jinja").render(values)


def _literal(value: Any) -> str:
    """Return a Python literal in the style of formatters; escapes in names cannot break the file."""
    return json.dumps(value, ensure_ascii=False)


def _yaml(value: Any) -> str:
    return schema.yaml_of(value, flow=True, width=10_000).removesuffix("\n").removesuffix("\n...")


def _doc(text: str) -> str:
    """Return text that cannot end the docstring it is put in."""
    return " ".join(text.split()).replace("\\", "\\\\").replace('"', "'")
