"""`ondol check`: everything that would be refused, said before anything runs."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from ondol.base import errors
from ondol.cli import output
from ondol.cli.checkers import CHECKERS
from ondol.cli.checkers.findings import Checker, Finding, SourceFile, of_error

Json = dict[str, Any]

_SUFFIXES = (".yaml", ".yml", ".json", ".py")
_NOT_OURS = {".git", ".ondol", ".venv", "venv", "node_modules", "__pycache__", "site-packages"}
_KUSTOMIZE = ("kustomization.yaml", "kustomization.yml", "Kustomization")


@click.command(
    epilog="""\b
Examples:
  ondol check .                      every file of the project
  ondol check serving/ train.py      a folder and a file
  ondol check guardrails/ --fix      write what can be mended
  kustomize build dev | ondol check -"""
)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--fix", is_flag=True, help="Mend what can be mended, in the files.")
@output.json_option
def command(paths: tuple[Path, ...], fix: bool, as_json: bool) -> int:
    """Check foreign files: what is wrong, not honoured here, or without effect.

    KServe manifests, KFP pipelines (.py or compiled), ondol.yaml, prompts, guardrails and evaluation suites, in files
    or anywhere below folders; container images, too, that `images` of ondol.yaml gives no meaning. A pipeline's .py is
    compiled, which runs its module. Exit code 2 when something is refused.
    """
    findings: list[Finding] = []
    checked: list[Json] = []
    for file in _files(paths):
        name, checker = _checker(file)
        if checker is None:
            if file.named:
                findings.append(Finding(str(file.path), 0, "", "no kind of file that is known here", code="INP-302"))
            continue
        mended = _mended(file, checker) if fix else False
        found = list(_checked(file, checker))
        findings += found
        checked.append({"file": str(file.path), "kind": name, "mended": mended})
    errors_found = sum(finding.severity == "error" for finding in findings)
    output.emit(
        {"checked": checked, "findings": findings, "errors": errors_found},
        as_json,
        lambda: _show(checked, findings, errors_found),
    )
    return 2 if errors_found else 0


def _files(paths: tuple[Path, ...]) -> Iterator[SourceFile]:
    """Yield standard input for `-`, the files that are named, and those below the folders that are, each once.

    :raises InputError: when a path leads nowhere.
    """
    seen = set[Path]()
    for path in paths:
        if str(path) == "-":
            yield SourceFile.of_text(sys.stdin.read())
            continue
        if not path.exists():
            raise errors.InputError(f"there is no {str(path)!r}", code="INP-301")
        for one in [path] if path.is_file() else sorted(_below(path)):
            if one.resolve() not in seen:
                seen.add(one.resolve())
                yield SourceFile(one, named=path.is_file())


def _below(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _NOT_OURS]
        partial = _patches(Path(root), names)
        for name in names:
            path = Path(root) / name
            if path.suffix in _SUFFIXES and name not in _KUSTOMIZE and path.resolve() not in partial:
                yield path


def _patches(folder: Path, names: list[str]) -> set[Path]:
    """Return the files that a kustomization only merges into others: no manifest is whole in them."""
    found = set[Path]()
    for name in _KUSTOMIZE:
        if name not in names:
            continue
        try:
            value = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue
        patches = value.get("patches") if isinstance(value, dict) else None
        listed = [one.get("path") for one in patches if isinstance(one, dict)] if isinstance(patches, list) else []
        merged = value.get("patchesStrategicMerge") if isinstance(value, dict) else None
        listed += merged if isinstance(merged, list) else []
        found |= {(folder / one).resolve() for one in listed if isinstance(one, str) and "\n" not in one}
    return found


def _checker(file: SourceFile) -> tuple[str, Any]:
    """Return the first checker that claims a file, and its name."""
    for name in CHECKERS:
        checker = importlib.import_module(f"ondol.cli.checkers.{name}")
        try:
            if checker.claims(file):
                return name, checker
        except errors.InputError:  # no text: nothing that is known here
            return "", None
    return "", None


def _checked(file: SourceFile, checker: Checker) -> Iterator[Finding]:
    try:
        yield from checker.check(file)
    except errors.OndolError as error:
        yield of_error(error, file)


def _mended(file: SourceFile, checker: Any) -> bool:
    """Write a file's mended text; return whether anything changed."""
    if not hasattr(checker, "fix"):
        return False
    try:
        text = checker.fix(file)
    except errors.OndolError:  # the check says what is wrong with it
        return False
    if text == file.text:
        return False
    file.path.write_text(text, encoding="utf-8")
    file.text = text
    return True


def _show(checked: list[Json], findings: list[Finding], errors_found: int) -> None:
    for one in checked:
        if one["mended"]:
            print(f"{one['file']}: mended")
    for finding in findings:
        field = f"{finding.field}: " if finding.field else ""
        code = f" [{finding.code}]" if finding.code else ""
        print(f"{finding.where}: {finding.severity}: {field}{finding.message}{code}")
        if finding.way_out:
            print(f"  way out: {finding.way_out}")
    notes = len(findings) - errors_found
    print(f"{_count(len(checked), 'file')} checked, {_count(errors_found, 'error')}, {_count(notes, 'note')}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
