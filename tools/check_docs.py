"""Fail when the documentation is not true: broken links, missing translations, pasted help that differs, missing codes.

`--write` pastes the current help and tables instead of complaining about them.

- Every page of `docs/en` has its Korean twin in `docs/ko` under the same name, and the other way round.
- Every relative link leads to a file.
- A line `<!-- help: ondol run -->` is followed by a fence with exactly that command's `--help`.
- A line `<!-- fields: KIND -->` is followed by the table of what is done with that kind's fields, up to `<!-- end -->`.
- Every command of `ondol` stands in `docs/*/commands.md`, and every error code raised in `src` in `docs/*/errors.md`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_HELP = re.compile(r"<!-- help: ondol ?([a-z ]*) -->\n```text\n(.*?)```", re.DOTALL)
_FIELDS = re.compile(r"<!-- fields: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_CODE = re.compile(r'(?:default_code: ClassVar\[str\] = |code=)"([A-Z]{3}-\d{3})"')


def help_text(words: list[str]) -> str:
    """Return what `ondol WORDS --help` prints, 100 columns wide."""
    from click.testing import CliRunner

    from ondol.cli import main

    result = CliRunner().invoke(main.cli, [*words, "--help"], prog_name="ondol", terminal_width=100)
    if result.exit_code != 0:
        raise SystemExit(f"ondol {' '.join(words)} --help failed: {result.exception!r}")
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines()) + "\n"


def pages() -> list[Path]:
    """Return the README pages and every page below docs."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def twins() -> list[str]:
    """Return pages that lack their translation."""
    english = {path.name for path in (ROOT / "docs/en").glob("*.md")}
    korean = {path.name for path in (ROOT / "docs/ko").glob("*.md")}
    return [f"docs/ko/{name} is missing" for name in sorted(english - korean)] + [
        f"docs/en/{name} is missing" for name in sorted(korean - english)
    ]


def broken_links(path: Path) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [
        f"{path.relative_to(ROOT)}: link to {target!r} leads nowhere"
        for target in _LINK.findall(text)
        if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists()
    ]


def stale_help(path: Path, write: bool) -> list[str]:
    """Return (or mend) the pasted help texts of a page that differ from what the command prints."""
    text = path.read_text(encoding="utf-8")
    found: list[str] = []

    def fresh(match: re.Match[str]) -> str:
        words, pasted = match.group(1).split(), match.group(2)
        current = help_text(words)
        if pasted != current:
            found.append(f"{path.relative_to(ROOT)}: help of `ondol {' '.join(words)}` has changed (--write mends it)")
        return f"<!-- help: ondol {match.group(1)} -->\n```text\n{current}```".replace("ondol  -->", "ondol -->")

    mended = _HELP.sub(fresh, text)
    if write and mended != text:
        path.write_text(mended, encoding="utf-8")
        return []
    return found


def stale_fields(path: Path, write: bool) -> list[str]:
    """Return (or mend) the tables of fields that are not what the declarations say."""
    from ondol.formats.kserve import kinds

    known = {kind.kind: kind for kind in reversed(kinds.KINDS)}
    text = path.read_text(encoding="utf-8")
    found: list[str] = []

    def fresh(match: re.Match[str]) -> str:
        current = kinds.table(known[match.group(1)])
        if match.group(2) != current:
            found.append(f"{path.relative_to(ROOT)}: the fields of {match.group(1)} have changed (--write mends it)")
        return f"<!-- fields: {match.group(1)} -->\n{current}<!-- end -->"

    mended = _FIELDS.sub(fresh, text)
    if write and mended != text:
        path.write_text(mended, encoding="utf-8")
        return []
    return found


def undocumented() -> list[str]:
    """Return commands and error codes that a reader cannot look up."""
    from ondol.cli import main

    codes = {code for path in (ROOT / "src").rglob("*.py") for code in _CODE.findall(path.read_text(encoding="utf-8"))}
    found: list[str] = []
    for language in ("en", "ko"):
        for name, wanted in (("commands.md", [f"ondol {one}" for one in main.COMMANDS]), ("errors.md", sorted(codes))):
            page = ROOT / "docs" / language / name
            text = page.read_text(encoding="utf-8") if page.exists() else ""
            found.extend(f"docs/{language}/{name}: {one} is not there" for one in wanted if one not in text)
    return found


def main(write: bool) -> int:
    """Print what is not true and return the exit code."""
    problems = twins()
    for path in pages():
        problems += broken_links(path) + stale_help(path, write) + stale_fields(path, write)
    problems += undocumented()
    print("\n".join(problems) or "docs: ok")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv))
