"""`ondol rollout`: who is on trial, what the evidence says, and the hand on the lever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from ondol.cli import context, output

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.records.rollout import Decision, JudgePolicy, Rollout
    from ondol.rollout.findings import Finding
    from ondol.store.connection import Store


@click.group(
    "rollout",
    epilog="\b\nExamples:\n  ondol rollout start delay 3f2a91bc --steps 5,25,100\n"
    "  ondol rollout start support 9c01d2aa --strategy ab --arm short=41be77f0 --decide-on quality\n"
    "  ondol rollout status delay --watch\n  ondol rollout abort delay --reason 'wrong training data'",
)
def group() -> None:
    """Canaries, A/B tests, blue/green, shadows: judged on evidence that may be looked at after every request."""


def _statuses(store: Store, service: str) -> list[dict[str, Any]]:
    """Return the newest rollout of each service with its decision, or what the judge thinks so far."""
    from ondol.base import errors
    from ondol.store import rollouts, routes

    newest: dict[str, Rollout] = {}
    for rollout in rollouts.of_service(store, service):
        newest.setdefault(rollout.service, rollout)
    if service and not newest and routes.get(store, service) is None:
        raise errors.NotFoundError(
            f"no service {service!r} and no rollout of it", way_out="`ondol rollout status` shows all.", code="NOF-031"
        )
    return [_status(store, one) for one in newest.values()]


def _status(store: Store, rollout: Rollout) -> dict[str, Any]:
    from ondol.records import codec
    from ondol.rollout import standing

    found = standing.of(store, rollout)
    going_on = not found.decision
    return {
        "rollout": codec.plain(rollout),
        "verdict": found.verdict,
        "reason": f"{found.verdict}: {found.reason}" if going_on else found.reason,
        "decision": found.decision,
        "findings": codec.plain(found.evidence.get("findings", [])),
        "split": found.evidence.get("split", {}),
        "facts": codec.plain(found.evidence.get("facts", {})),
        "more_requests": found.more_requests,
        "alpha": rollout.policy.alpha,
        "page": f"{_control()}/rollouts/{rollout.id}",
    }


def _control() -> str:
    """Return the address of the control process: where it runs, or would."""
    from ondol.app import running

    settings = context.load_settings()
    live = running.find(settings.home)
    return (live.control if live else settings.control).url


def _show(status: dict[str, Any]) -> None:
    from ondol.base import clock, hashing
    from ondol.records import codec
    from ondol.records.rollout import Rollout

    rollout = codec.typed(status["rollout"], Rollout)
    names = ", ".join(
        (f"{one.name} " if rollout.others else "") + hashing.short(one.release) for one in rollout.variants
    )
    kind = "" if rollout.policy.strategy == "canary" else f"{rollout.policy.strategy}, "
    print(
        f"{rollout.service}: {names} against {hashing.short(rollout.stable)}, {kind}{_where(rollout)}, "
        f"step {rollout.step + 1} of {len(rollout.policy.steps)}, since {clock.iso(rollout.started_at)}"
    )
    _show_findings(status)
    if status["split"]:
        facts = status["facts"]
        print(
            f"{facts['candidate_requests']} + {facts['stable_requests']} requests; "
            f"split e-value {10 ** min(status['split']['log10_e'], 300):.3g} (broken at "
            f"{10 ** status['split']['at']:.0f}); false rollback at most {100 * status['alpha']:g} % over all metrics"
        )
    print(f"→ {status['reason']}" + (f"  ({status['decision']})" if status["decision"] else ""))
    print(f"page: {status['page']}\n")


def _where(rollout: Rollout) -> str:
    if rollout.state != "progressing":
        return rollout.state
    return f"{rollout.weight:g} %" if rollout.weight else "copies only"


def _show_findings(status: dict[str, Any]) -> None:
    from ondol.records import codec
    from ondol.rollout.findings import Finding

    columns = [_column(codec.typed(one, Finding)) for one in status["findings"]]
    if columns:
        rows = [(name, *(column[name] for column in columns)) for name in columns[0] if name]
        output.table(("", *(column[""] for column in columns)), [row for row in rows if any(row[1:])])


def _column(one: Finding) -> dict[str, str]:
    """Return what is said about one metric, by row; the row without a name is the head."""
    from ondol.rollout import findings

    more = "not in sight" if one.more_requests is None else str(one.more_requests)
    (low, high), accepted = one.interval, one.margin * one.unit
    return {
        "": f"{one.variant} {one.metric}".strip(),
        "candidate": findings.shown(one, one.candidate),
        "  requests": str(one.candidate_n),
        "stable": findings.shown(one, one.stable),
        "  requests ": str(one.stable_n),
        "units compared": str(one.units),
        "difference (95 %)": f"{low:+.3g} … {high:+.3g}",
        "  numbers count up to": f"{one.counted_to:.3g}" if one.counted_to else "",
        "  accepted below": f"{accepted:.3g}" if accepted >= 0 else f"above {accepted:.3g}",
        "evidence: worse": findings.e_shown(one.harm),
        "  rolled back at": findings.e_shown(one.harm_at),
        "e-value: safe": findings.e_shown(one.safe),
        "  promoted at": findings.e_shown(one.safe_at),
        **_decided(one),
        "requests to go": more,
        "could not be scored": str(one.unscored),
    }


def _decided(one: Finding) -> dict[str, str]:
    """Return what an A/B test is decided by."""
    from ondol.rollout import findings

    if not (one.better or one.no_better):
        return {"e-value: better": "", "e-value: no better": ""}
    return {
        "e-value: better": findings.e_shown(one.better), "e-value: no better": findings.e_shown(one.no_better),
    }  # fmt: skip


@group.command(
    "status",
    epilog="\b\nExamples:\n  ondol rollout status\n  ondol rollout status delay --watch\n  ondol rollout status --json",
)
@click.argument("service", required=False, default="")
@click.option("--watch", is_flag=True, help="Print again every 2 seconds until nothing is on trial.")
@output.json_option
def status(service: str, watch: bool, as_json: bool) -> None:
    """Show each service's newest rollout: counts per arm, difference, evidence for and against, decision and why."""
    with context.open_store() as store:
        while True:
            found = _statuses(store, service)
            output.emit(found, as_json, lambda found=found: _show_all(found))  # type: ignore[misc]
            if not watch or all(one["rollout"]["state"] != "progressing" for one in found):
                return
            time.sleep(2)


def _show_all(found: list[dict[str, Any]]) -> None:
    for one in found:
        _show(one)
    if not found:
        print("no rollouts yet: `ondol rollout start SERVICE RELEASE` starts one")


@group.command(
    "start",
    epilog="\b\nExamples:\n  ondol rollout start delay 3f2a91bc\n"
    "  ondol rollout start delay 3f2a91bc --steps 1,10,50,100 --metric error_rate --metric quality --margin 0.02\n"
    "  ondol rollout start delay 3f2a91bc --strategy shadow\n"
    "  ondol rollout start support 9c01d2aa --strategy ab --arm short=41be77f0 --metric quality --metric cost \\\n"
    "    --decide-on quality",
)
@click.argument("service")
@click.argument("release")
@click.option("--strategy", type=click.Choice(["canary", "blue-green", "ab", "shadow"]), help="How (canary).")
@click.option("--arm", "arms", multiple=True, metavar="NAME=RELEASE", help="A further variant of an A/B test.")
@click.option("--steps", default="", help="Percentages, growing, ending with 100 (10,100); 0 first: copies only.")
@click.option(
    "--metric", "metrics", multiple=True,
    help="error_rate, quality, latency_p95, disagreement, or a signal such as cost.",
)  # fmt: skip
@click.option("--decide-on", help="The metric that an A/B test is about (quality).")
@click.option("--unit", help="Where requests name their unit: header:NAME, cookie:NAME or body:FIELD.")
@click.option("--alpha", type=float, help="Chance of rolling back a release that is no worse (0.01).")
@click.option("--margin", type=float, help="Loss that is accepted for promotion (0.01).")
@click.option("--min-requests", type=int, help="Candidate requests at a step before it is left (200).")
@click.option("--max-requests", type=int, help="Candidate requests after which it is inconclusive (20000).")
@output.json_option
def start(
    service: str, release: str, steps: str, metrics: tuple[str, ...], arms: tuple[str, ...], as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Put RELEASE (8 digits are enough) on trial for SERVICE."""
    from ondol.base import errors, hashing
    from ondol.records import codec
    from ondol.rollout import controller, policies

    named = dict(_named_release(one) for one in arms)
    if named and not steps:
        steps = f"{100 * (len(named) + 1) / (len(named) + 2):.2f}"  # as many for each as for stable
    policy = _policy(service, steps, metrics, given)
    with context.open_store() as store:
        rollout = controller.start(store, service, release, policy, named)
    if rollout.policy != policies.check(policy):  # the loop has begun it, and not as it was asked for here
        raise errors.ConflictError(
            f"{service!r} tries {hashing.short(rollout.candidate)} already, by strategy {rollout.policy.strategy!r} "
            "and other rules than these",
            way_out=f"Wait for its verdict, or stop it: `ondol rollout abort {service}`.",
            code="CON-030",
        )
    output.emit(codec.plain(rollout), as_json, lambda: print(_begun(rollout)))


def _begun(rollout: Rollout) -> str:
    from ondol.base import hashing

    share = f"gets {rollout.weight:g} %" if rollout.weight else "answers copies, which nobody sees"
    names = ", ".join(hashing.short(one.release) for one in rollout.variants)
    return f"{rollout.service}: {names} {share}  ({rollout.id})"


def _policy(service: str, steps: str, metrics: tuple[str, ...], given: dict[str, Any]) -> JudgePolicy:
    """Return the project's policy with what the command line says instead."""
    from ondol.base import errors
    from ondol.records import codec
    from ondol.records.rollout import STRATEGIES, JudgePolicy

    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if metrics:
        chosen["metrics"] = list(metrics)
    if steps:
        try:
            chosen["steps"] = [float(part) for part in steps.split(",")]
        except ValueError as error:
            raise errors.UsageError(f"--steps {steps!r} is not a list of percentages", way_out="10,50,100") from error
    base = codec.plain(project_policy(service))
    if (strategy := chosen.get("strategy")) and strategy != base["strategy"]:
        plain = codec.plain(JudgePolicy())
        base |= {name: plain[name] for name in ("steps", "metrics", "decide_on")} | STRATEGIES[strategy]
        if strategy == "ab" and metrics:
            base["decide_on"] = metrics[-1]
    return codec.typed({**base, **chosen}, JudgePolicy)


def _named_release(text: str) -> tuple[str, str]:
    from ondol.base import errors

    name, equals, release = text.partition("=")
    if not (name and equals and release):
        raise errors.UsageError(f"--arm {text!r} is not NAME=RELEASE", way_out="--arm short=41be77f0")
    return name, release


def _by_hand(service: str, act: Callable[[Store], Decision], as_json: bool) -> None:
    from ondol.base import hashing
    from ondol.records import codec

    with context.open_store() as store:
        decision = act(store)
    serving = hashing.short(decision.evidence["route"]["stable"])
    output.emit(
        codec.plain(decision),
        as_json,
        lambda: print(f"{service}: {decision.verdict}, {serving} serves  ({decision.id})"),
    )


@group.command(
    "promote",
    epilog="\b\nExamples:\n  ondol rollout promote delay --reason 'checked by hand'\n"
    "  ondol rollout promote support --variant short",
)
@click.argument("service")
@click.option("--variant", default="", help="Which one of several (the candidate).")
@click.option("--reason", default="promoted by hand", help="Kept with the decision.")
@output.json_option
def promote(service: str, variant: str, reason: str, as_json: bool) -> None:
    """Make SERVICE's candidate serve everybody now, whatever the judge thinks so far."""
    from ondol.rollout import controller

    _by_hand(service, lambda store: controller.promote(store, service, reason, variant), as_json)


@group.command("abort", epilog="\b\nExamples:\n  ondol rollout abort delay --reason 'wrong training data'")
@click.argument("service")
@click.option("--reason", default="aborted by hand", help="Kept with the decision.")
@output.json_option
def abort(service: str, reason: str, as_json: bool) -> None:
    """Take SERVICE's candidate out; stable goes on serving everybody."""
    from ondol.rollout import controller

    _by_hand(service, lambda store: controller.abort(store, service, reason), as_json)


def project_policy(service: str) -> Any:
    """Return how the project tries candidates of a service; outside a project, the defaults."""
    from ondol.base import errors
    from ondol.formats import project as projects
    from ondol.records.rollout import JudgePolicy

    try:
        return projects.load(context.load_settings().project).policy(service)
    except errors.NotFoundError:
        return JudgePolicy()
