"""`ondol cost`: tokens and money, from the ledger."""

from __future__ import annotations

import time

import click

from ondol.base import errors
from ondol.cli import context, output

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds_ago(text: str) -> float:
    """Read `30m`, `24h`, `7d`, `all`.

    :raises UsageError: for anything else.
    """
    if text == "all":
        return 0.0
    number, unit = text[:-1], text[-1:]
    if not number.isdigit() or unit not in _UNITS:
        raise errors.UsageError(f"--since {text!r}", way_out="Write 30m, 24h, 7d or all.", code="USE-162")
    return time.time() - int(number) * _UNITS[unit]


@click.command(
    epilog="""\b
Examples:
  ondol cost
  ondol cost --by prompt --since 7d
  ondol cost --by user --json"""
)
@click.option(
    "--by",
    type=click.Choice(["application", "prompt", "user", "model", "release"]),
    default="application",
    show_default=True,
    help="What to add up over.",
)
@click.option("--since", default="all", show_default=True, help="30m, 24h, 7d … or all.")
@output.json_option
def command(by: str, since: str, as_json: bool) -> None:
    """Tokens and cost, by application, prompt, user or model.

    Costs are US dollars. `estimated`: the provider did not say how many tokens. `unpriced`: nobody knows the model's
    price; such calls are counted and add nothing to the cost. `free`: local models.
    """
    from ondol.store import usage

    moment = seconds_ago(since)
    with context.open_store() as store:
        totals = usage.totals(store, by, moment)  # type: ignore[arg-type]  # click checked the choice

    def show() -> None:
        rows = [
            [
                _name(one.key, by),
                one.calls,
                one.input_tokens,
                one.output_tokens,
                f"${one.cost:.6f}",
                one.priced,
                one.estimated,
                one.unpriced,
                one.free,
                one.failed,
            ]
            for one in totals
        ]
        columns = [by, "calls", "input", "output", "cost", "priced", "estimated", "unpriced", "free", "failed"]
        output.table(columns, rows, empty="No calls of a model are booked yet: `ondol ask` makes one.")
        if any(one.unpriced for one in totals):
            print("\nunpriced calls: add `prices: {MODEL: {input: …, output: …}}` to ondol.yaml (USD per 1M tokens).")

    output.emit({"by": by, "since": moment, "totals": totals}, as_json, show)


def _name(key: str, by: str) -> str:
    if not key:
        return {"application": "(gateway)", "prompt": "(no prompt)", "user": "(nobody named)"}.get(by, "(none)")
    name, at, digest = key.partition("@")
    return f"{name}@{digest.removeprefix('sha256:')[:12]}" if at else key.removeprefix("sha256:")[:60]
