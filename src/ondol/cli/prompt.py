"""`ondol prompt`: versions of prompts from the command line. Thin: the library does the work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ondol.base import clock, errors, hashing
from ondol.cli import context, output
from ondol.prompts import git_view, library
from ondol.prompts.library import Commit, Prompts


def _prompts() -> Prompts:
    return Prompts(context.open_store())


def _plain(commit: Commit) -> dict[str, Any]:
    return {
        "name": commit.name,
        "ref": f"v{commit.number}",
        "commit": commit.digest,
        "parent": commit.parent,
        "version": commit.version,
        "message": commit.message,
        "tags": list(commit.tags),
        "input_variables": list(commit.prompt.input_variables),
        "source": commit.source,
        "created_at": clock.iso(commit.created_at),
    }


@click.group(
    name="prompt",
    epilog="""\b
Examples:
  ondol prompt push prompts/ -m "Ask for sources"
  ondol prompt tag qa_prompt@v2 production
  ondol prompt diff qa_prompt@production qa_prompt
  ondol prompt render qa_prompt -v question="API 인증 방법은?" -v context=@notes.txt""",
)
def group() -> None:
    """Versions of prompts: push files, tag, compare, render.

    A reference is NAME, NAME@TAG, NAME@v2, NAME@1.0.0 (the file's version) or NAME@COMMIT.
    """


@group.command(epilog="Example: ondol prompt push prompts/qa_prompt.yaml -m 'Shorter answers'")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("-m", "--message", default="", help="What changed, for the history.")
@output.json_option
def push(path: Path, message: str, as_json: bool) -> None:
    """Push a prompt file, or every one in a folder. Unchanged files make no new commit."""
    commits = _prompts().push_all(path, message)

    def show() -> None:
        for commit in commits:
            state = "pushed" if commit.new else "unchanged"
            print(f"{state:9}  {commit.name}@v{commit.number}  {hashing.short(commit.digest)}  {commit.source}")

    output.emit([{**_plain(commit), "new": commit.new} for commit in commits], as_json, show)


@group.command(epilog="Example: ondol prompt pull qa_prompt@production -o qa_prompt.yaml")
@click.argument("ref")
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), help="Write the file here.")
@output.json_option
def pull(ref: str, target: Path | None, as_json: bool) -> None:
    """Print or write the file of one version, exactly as it was pushed."""
    commit = _prompts().get(ref)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(commit.text, encoding="utf-8")
    value = {**_plain(commit), "text": commit.text, "written": str(target) if target else ""}
    shown = f"{commit.address} -> {target}" if target else commit.text.rstrip("\n")
    output.emit(value, as_json, lambda: print(shown))


@group.command("list", epilog="Example: ondol prompt list qa_prompt   (its history)")
@click.argument("name", required=False)
@output.json_option
def list_(name: str | None, as_json: bool) -> None:
    """List prompts, or the commits of one, with what git says about their files."""
    prompts = _prompts()
    commits = prompts.history(name) if name else prompts.newest()
    states = [git_view.state(Path(commit.source)) if commit.source else None for commit in commits]
    value = [
        {**_plain(commit), "git": str(state) if state else ""} for commit, state in zip(commits, states, strict=True)
    ]
    output.emit(
        value,
        as_json,
        lambda: output.table(
            ("prompt", "version", "commit", "tags", "variables", "message", "git"),
            [
                (
                    f"{row['name']}@{row['ref']}",
                    row["version"],
                    hashing.short(row["commit"]),
                    " ".join(row["tags"]),
                    " ".join(row["input_variables"]),
                    row["message"],
                    row["git"],
                )
                for row in value
            ],
            empty="No prompts yet. `ondol prompt push prompts/` adds them.",
        ),
    )


@group.command(epilog="Example: ondol prompt diff qa_prompt@v1 qa_prompt@v2   (exit code 0 also when they differ)")
@click.argument("left")
@click.argument("right")
@output.json_option
def diff(left: str, right: str, as_json: bool) -> None:
    """Show what changed between two versions."""
    text = _prompts().diff(left, right)
    shown = text.rstrip("\n") or "They are the same."
    output.emit({"left": left, "right": right, "same": not text, "diff": text}, as_json, lambda: print(shown))


@group.command(epilog="Example: ondol prompt tag qa_prompt@v2 production")
@click.argument("ref")
@click.argument("tag")
@output.json_option
def tag(ref: str, tag: str, as_json: bool) -> None:
    """Point a tag at a version; the moves are kept."""
    commit, previous = _prompts().tag(ref, tag)
    before = f" (was {hashing.short(previous)})" if previous else ""
    output.emit(
        {**_plain(commit), "tag": tag, "previous": previous},
        as_json,
        lambda: print(f"{commit.name}@{tag} -> v{commit.number} {hashing.short(commit.digest)}{before}"),
    )


def _value(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise errors.UsageError(f"{text!r} is not NAME=VALUE", way_out="Write -v question=... or -v context=@FILE.")
    if value.startswith("@"):
        try:
            return name, Path(value[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise errors.InputError(
                f"cannot read {value[1:]!r} as text: {error}", where=text, code="INP-050"
            ) from error
    return name, value


@group.command(
    epilog="""\b
Examples:
  ondol prompt render qa_prompt -v question="How?" -v context=@doc.md
  ondol prompt render prompts/qa_prompt.yaml --values values.json"""
)
@click.argument("ref")
@click.option("-v", "--value", "pairs", multiple=True, help="NAME=VALUE, or NAME=@FILE.")
@click.option("--values", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="JSON object.")
@output.json_option
def render(ref: str, pairs: tuple[str, ...], file: Path | None, as_json: bool) -> None:
    """Fill a prompt's variables and print it. REF may also be a file that was not pushed."""
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise errors.InputError(f"not JSON: {error}", where=str(file), code="INP-050") from error
        if not isinstance(values, dict):
            raise errors.InputError("the values must be a JSON object", where=str(file), code="INP-050")
    values |= dict(_value(pair) for pair in pairs)
    is_file = ref.endswith((".yaml", ".yml")) and Path(ref).is_file()
    prompt = library.read(Path(ref))[0] if is_file else _prompts().get(ref).prompt
    messages = library.render_messages(prompt, values)
    text = library.render(prompt, values)
    output.emit({"prompt": ref, "text": text, "messages": messages}, as_json, lambda: print(text))
