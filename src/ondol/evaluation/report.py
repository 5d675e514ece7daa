"""An evaluation report as one self-contained HTML page and as JSON that can be read back.

Must not compute anything: it shows what the report says.
"""

from __future__ import annotations

import html
from pathlib import Path

from ondol.base import clock, errors, hashing
from ondol.records import codec
from ondol.records.evaluation import SampleResult, Score, SuiteReport

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #2a8f5b; --bad: #c2452d; }
body { font: 15px/1.5 system-ui, "Noto Sans KR", sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 } th, td { text-align: left; padding: .35rem .6rem;
border-bottom: 1px solid var(--line); vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.bar { background: var(--line); height: .7rem; width: 12rem; position: relative; border-radius: .35rem }
.bar i { background: var(--good); display: block; height: 100%; border-radius: .35rem }
.bar b { position: absolute; top: -.15rem; height: 1rem; border-left: 2px solid; border-right: 2px solid; opacity: .5 }
details { border-bottom: 1px solid var(--line); padding: .4rem 0 } summary { cursor: pointer }
.low { color: var(--bad) } .muted { opacity: .7 } pre { white-space: pre-wrap; margin: .3rem 0 }
"""


def to_html(report: SuiteReport) -> str:
    """Return the report as a page without outside references; everything from outside is escaped."""
    worst = sorted(report.results, key=_mean)
    facts = [
        ("Evaluated", clock.iso(report.at)),
        ("Answered by", report.answerer),
        ("Judge", report.judge or "none: deterministic scorers"),
        ("Embedder", report.embedder or "none"),
        ("Dataset", f"{hashing.short(report.dataset)}, {len(report.results)} samples"),
        ("Took", f"{report.seconds:.1f} s"),
    ]
    return "".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8>",
            "<meta name=viewport content='width=device-width, initial-scale=1'>",
            f"<title>{_e(report.suite)}: evaluation</title><style>{_STYLE}</style>",
            f"<h1>{_e(report.suite)}</h1><table>",
            *[f"<tr><th>{_e(name)}<td>{_e(value)}" for name, value in facts],
            "</table><h2>Scores</h2><table><tr><th>metric<th>mean<th>95 % interval<th>samples<th>",
            *[_score_row(score) for score in report.scores],
            "</table>",
            *[f"<p class=muted>{_e(note)}</p>" for note in report.notes],
            "<h2>Samples, worst first</h2>",
            *[_sample(result) for result in worst],
            "</html>",
        ]
    )


def _e(value: object) -> str:
    return html.escape(str(value))


def _mean(result: SampleResult) -> float:
    known = [one.value for one in result.values if one.value is not None]
    return sum(known) / len(known) if known else -1.0


def _score_row(score: Score) -> str:
    interval, marks = "", ""
    if score.low is not None and score.high is not None:
        low, high = max(0.0, score.low), min(1.0, score.high)
        interval = f"{low:.3f} to {high:.3f}"
        marks = f"<b style='left:{low:.1%};width:{max(0.0, high - low):.1%}'></b>"
    return (
        f"<tr><td>{_e(score.name)}<td class=n>{score.value:.3f}<td class=n>{interval}<td class=n>{score.n}"
        f"<td><div class=bar><i style='width:{min(1.0, max(0.0, score.value)):.1%}'></i>{marks}</div>"
    )


def _sample(result: SampleResult) -> str:
    sample, mean = result.sample, _mean(result)
    values = "".join(
        f"<tr><td>{_e(one.metric)}<td class=n>{'–' if one.value is None else f'{one.value:.2f}'}"
        f"<td class='{'low' if one.error else 'muted'}'>{_e(one.error or one.reason)}"
        for one in result.values
    )
    contexts = "".join(
        f"<details><summary>{_e(document)}</summary><pre>{_e(context)}</pre></details>"
        for document, context in zip(
            sample.documents or tuple(f"context {n}" for n in range(1, len(sample.contexts) + 1)),
            sample.contexts,
            strict=False,
        )
    )
    shown = "–" if mean < 0 else f"{mean:.2f}"
    return (
        f"<details><summary><span class='{'low' if 0 <= mean < 0.5 else ''}'>{shown}</span> {_e(sample.question)}"
        f"</summary><p><b>Answer</b></p><pre>{_e(sample.answer)}</pre>"
        f"<p><b>Reference</b></p><pre>{_e(sample.ground_truth or '–')}</pre><table>{values}</table>{contexts}</details>"
    )


def write(report: SuiteReport, path: Path) -> None:
    """Write the report as HTML, or as JSON when the name ends in `.json`; whole or not at all.

    :raises InputError: when the file cannot be written.
    """
    body = codec.encode(report) if path.suffix == ".json" else to_html(report)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(body, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise errors.InputError(f"cannot write {str(path)!r}: {error.strerror}", code="INP-023") from error


def read(path: Path) -> SuiteReport:
    """Read a JSON report.

    :raises InputError: when it is not one, or of a newer version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InputError(f"cannot read {str(path)!r}: {error}", code="INP-020") from error
    report = codec.decode(text, SuiteReport)
    if report.version > 1:
        raise errors.InputError(f"the report has version {report.version}", where=str(path), way_out="Upgrade ondol.")
    return report
