"""`ondol`: the group of commands, loaded when called, and the one place where errors become exit codes."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from ondol.base import errors

# Command -> module:attribute and its one-line help, by what people come for. Listed here so that `ondol --help` imports
# no command at all.
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Start": {
        "demo": ("demo:command", "Run the whole loop on real data, in about two minutes."),
        "init": ("init:command", "Make a project out of your own table."),
        "up": ("up:command", "Start (or stop) the control process and the data plane."),
        "status": ("status:command", "What runs, what serves, what disagrees."),
        "check": ("check:command", "Check files before anything runs: what is wrong or not honoured."),
        "doctor": ("doctor:command", "Check this machine and environment, with remedies."),
    },
    "Data and pipelines": {
        "data": ("data:group", "Data and the request log (check, profile, drift, log, label)."),
        "run": ("run:command", "Run a KFP pipeline (.py or compiled .yaml)."),
        "pipeline": ("pipeline:group", "Pipeline runs (list, show, logs, stop, retry, schedule)."),
    },
    "Models and the loop": {
        "model": ("model:group", "Registered models (list, promote, rollback)."),
        "release": ("release:group", "Releases (list, show, rollback)."),
        "rollout": ("rollout:group", "Canaries and their verdicts (start, status, promote, abort)."),
        "loop": ("loop:group", "The closed loop (run, status, rehearse, retrain, hold, release)."),
    },
    "Resources, as kubectl has them": {
        "apply": ("resources:apply", "Apply manifests (KServe, ConfigMap, Secret)."),
        "get": ("resource_views:get", "List resources, or watch them."),
        "describe": ("resource_views:describe", "Show one resource."),
        "delete": ("resources:delete", "Delete resources."),
        "wait": ("resources:wait", "Wait until a resource is ready, or gone."),
        "cluster": ("cluster:group", "Files for a real cluster (render)."),
    },
    "LLM applications": {
        "ask": ("ask:command", "Ask an LLM application a question."),
        "index": ("index:group", "Document indexes (build, sync, search, list, rollback)."),
        "prompt": ("prompt:group", "Prompt versions (push, pull, list, diff, tag, render)."),
        "guard": ("guard:group", "Guardrails (check, test, suggest)."),
        "eval": ("eval:command", "Evaluate an application or answers with a suite."),
    },
    "Watching": {
        "cost": ("cost:command", "Tokens and cost, by application, prompt, user or model."),
        "budget": ("budget:group", "Budgets (list, set, remove)."),
        "alert": ("alert:group", "Alerts (list, ack, silence, test)."),
        "trace": ("trace:group", "Traces of questions (list, show)."),
    },
}
COMMANDS = {name: found for section in SECTIONS.values() for name, found in section.items()}


class LazyGroup(click.Group):
    """A group whose commands are imported when one of them is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"ondol.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), summary) for name, (_, summary) in section.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            raise errors.UsageError(
                f"no command {args[0]!r}",
                way_out=f"Did you mean `ondol {near[0]}`?" if near else "`ondol --help` lists them.",
            )
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog='Tab completion: eval "$(_ONDOL_COMPLETE=bash_source ondol)"   (zsh_source, fish_source)',
)
@click.version_option(package_name="ondol")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Kubeflow, MLflow and LLMOps files and clients on this machine, with the loop closed."""
    ctx.obj = {"debug": debug}


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit: 0 ok, 1 failed, 2 wrong use, 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        result: Any = cli.main(args=arguments, prog_name="ondol", standalone_mode=False)
    except errors.OndolError as error:
        if arguments[:1] == ["--debug"]:
            raise
        from ondol.cli import output

        output.show_error(error, as_json="--json" in arguments)
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        _interrupted()
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except KeyboardInterrupt:
        _interrupted()
    except BrokenPipeError:
        sys.stderr.close()  # `ondol … | head` is no error
        sys.exit(0)
    sys.exit(result if isinstance(result, int) else 0)


def _interrupted() -> None:
    print("\nInterrupted. What was finished is kept: run the same command again to go on.", file=sys.stderr)
    sys.exit(130)


if __name__ == "__main__":
    main()
