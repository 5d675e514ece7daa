"""`ondol init`: a project out of the reader's own table. Thin: the work is in `ondol.data.starting`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ondol.cli import output

if TYPE_CHECKING:
    from ondol.data.starting import Plan


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Your table: CSV or Parquet.")
@click.option("--target", required=True, help="The column to predict.")
@output.json_option
def command(folder: Path, data: Path, target: str, as_json: bool) -> None:
    """Make a project out of your own table: pipeline, service, schema, gate.

    The files are ordinary: a Kubeflow pipeline, a KServe InferenceService, an ondol.yaml. Edit them.

    \b
    Examples:
      ondol init my-project --data my.csv --target column
      ondol init 이탈예측 --data 고객.csv --target 해지여부
      cd my-project && ondol loop run --once
    """
    from ondol.data import starting

    plan = starting.make(folder, data, target)
    output.emit({"folder": str(folder), **_plain(plan)}, as_json, lambda: _show(folder, plan))


def _plain(plan: Plan) -> dict[str, object]:
    from ondol.records import codec

    value: dict[str, object] = codec.plain(plan)
    return value


def _show(folder: Path, plan: Plan) -> None:
    kinds = {"binary": "two classes", "multiclass": "several classes", "regression": "a number"}
    print(f"{folder}: predicts {plan.target!r} ({kinds[plan.task]}) from {plan.rows:,} rows")
    print(f"  numbers     {', '.join(plan.numbers) or 'none'}")
    print(f"  categories  {', '.join(plan.categories) or 'none'}")
    for name, reason in plan.left_out:
        print(f"  left out    {name}: {reason}")
    if plan.name != folder.name:
        print(f"  named       {plan.name}, because Kubernetes takes a-z, 0-9 and - only")
    for note in plan.notes:
        print(f"  note        {note}")
    print(f"\nNext:\n  cd {folder}\n  ondol loop run --once")
