"""The front of `ondol`: what its help lists is what there is, and a shell can complete it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import click
import pytest

from ondol.cli import main
from ondol.cli.main import cli


def test_the_overview_names_every_subcommand() -> None:
    context = click.Context(cli)
    for name, (_, summary) in main.COMMANDS.items():
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            named = re.search(r"\((.*)\)\.$", summary)
            assert named, name
            assert sorted(named[1].split(", ")) == sorted(command.commands), name


@pytest.mark.parametrize(
    ("words", "current", "offered"),
    [
        ("ondol pip", "1", ["pipeline"]),
        ("ondol loop re", "2", ["rehearse", "release", "retrain"]),
        ("ondol rollout start --strat", "3", ["--strategy"]),
    ],
)
def test_a_shell_completes_commands_and_options(words: str, current: str, offered: list[str]) -> None:
    command = [sys.executable, "-c", "from ondol.cli.main import main; main()"]
    shell = {**os.environ, "_ONDOL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": current}
    said = subprocess.run(command, env=shell, check=True, capture_output=True, text=True).stdout
    assert [line.removeprefix("plain,") for line in said.splitlines()] == offered
