"""Where alerts go: webhooks, Slack-compatible webhooks, mail, a command.

Texts of ondol.yaml may hold `${VARIABLE}`, read when an alert is sent. What they become is never kept, logged or put
into an error: a target is known by its kind and a digest. Must not decide what is sent, or when.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate

import msgspec

from ondol.base import clock, errors, hashing
from ondol.records import codec
from ondol.records.alert import KINDS, Alert, AlertSpec, SmtpSpec

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HTTP_SECONDS, _SMTP_SECONDS, _COMMAND_SECONDS = 5.0, 10.0, 30.0
LEASE_SECONDS = 60.0
"""Longer than any of the above: nobody takes a delivery over that is being made."""


class NotSentError(Exception):
    """One attempt failed; the text holds no address and no secret."""


@dataclass(frozen=True, slots=True)
class Target:
    """One place that alerts go to."""

    name: str
    """Kind and digest of what the project says."""

    spec: AlertSpec

    def wants(self, alert: Alert) -> bool:
        """Whether this target is to be told."""
        return not self.spec.only or alert.kind in self.spec.only or alert.kind == "test"


def read(specs: Sequence[AlertSpec]) -> list[Target]:
    """Turn `alerts:` of ondol.yaml into targets; variables stay as they are until they are used.

    :raises InputError: INP-450 for a target that is none or several things at once, or names an unknown kind.
    """
    found = []
    for index, spec in enumerate(specs):
        where = f"ondol.yaml: alerts[{index}]"
        kinds = [name for name in ("webhook", "slack", "smtp", "command") if getattr(spec, name)]
        if len(kinds) != 1:
            raise errors.InputError(
                f"a target is {' and '.join(kinds) or 'nothing'!r}", where=where, code="INP-450",
                way_out="Give exactly one of webhook, slack, smtp, command.",
            )  # fmt: skip
        if unknown := sorted(set(spec.only) - set(KINDS)):
            raise errors.InputError(
                f"no alert is about {unknown[0]!r}", where=f"{where}.only", code="INP-450",
                way_out=f"There are: {', '.join(KINDS)}.",
            )  # fmt: skip
        digest = hashing.short(hashing.of_json([codec.plain(spec)]), 8)
        found.append(Target(f"{kinds[0]}-{digest}", spec))
    return found


def send(target: Target, alert: Alert, environ: Mapping[str, str] | None = None) -> None:
    """Send one alert to one target.

    :raises NotSentError: saying why, without where.
    """
    environ = os.environ if environ is None else environ
    spec = target.spec
    if spec.webhook:
        _post(_filled(spec.webhook, environ), body_of(alert))
    elif spec.slack:
        _post(_filled(spec.slack, environ), slack_of(alert))
    elif spec.smtp is not None:
        _mail(spec.smtp, alert, environ)
    else:
        _run([_filled(one, environ) for one in spec.command], alert)


def body_of(alert: Alert) -> dict[str, object]:
    """Return what a webhook gets; `text` is what Slack and its kin show."""
    return {
        "text": alert.message,
        "id": alert.id,
        "kind": alert.kind,
        "severity": alert.severity,
        "subject": alert.subject,
        "at": clock.iso(alert.at),
        "evidence": alert.evidence,
    }


def slack_of(alert: Alert) -> dict[str, object]:
    """Return a message for a Slack-compatible incoming webhook: text, and one section with one line of context.

    Format: Slack's Block Kit; `text` is the notification and what clients without blocks show.
    """
    said = alert.message.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    context = f"{alert.severity} · {alert.kind} · {alert.subject} · {alert.id}"
    return {
        "text": said,
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": said[:3000]}},
            {"type": "context", "elements": [{"type": "plain_text", "text": context[:2000]}]},
        ],
    }


def _filled(text: str, environ: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        if not environ.get(found.group(1)):
            raise NotSentError(f"the variable {found.group(1)} is not set")
        return environ[found.group(1)]

    return _VARIABLE.sub(value, text)


def _post(url: str, body: object) -> None:
    import httpx

    try:
        response = httpx.post(
            url,
            content=msgspec.json.encode(body),
            headers={"content-type": "application/json"},
            timeout=_HTTP_SECONDS,
        )
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise NotSentError(type(error).__name__) from None
    if response.status_code >= 300:
        raise NotSentError(f"the target answered {response.status_code}")


def _mail(spec: SmtpSpec, alert: Alert, environ: Mapping[str, str]) -> None:
    import smtplib
    import ssl

    message = EmailMessage()
    message["Subject"] = f"[ondol] {alert.severity}: {alert.kind} {alert.subject}".replace("\n", " ")[:200]
    message["From"] = _filled(spec.sender, environ)
    message["To"] = ", ".join(_filled(one, environ) for one in spec.to)
    message["Message-ID"] = f"<{alert.id}@ondol>"  # a mail that is sent twice is one mail to most readers
    message["Date"] = formatdate(alert.at)
    evidence = msgspec.json.format(msgspec.json.encode(body_of(alert)), indent=2).decode()
    message.set_content(f"{alert.message}\n\n{evidence}\n")
    host, user, password = (_filled(one, environ) for one in (spec.host, spec.user, spec.password))
    context = ssl.create_default_context()
    try:
        server = (
            smtplib.SMTP_SSL(host, spec.port, timeout=_SMTP_SECONDS, context=context)
            if spec.tls == "tls"
            else smtplib.SMTP(host, spec.port, timeout=_SMTP_SECONDS)
        )
        with server:
            if spec.tls == "starttls":
                server.starttls(context=context)
            if user:
                server.login(user, password)
            server.send_message(message)
    except (smtplib.SMTPException, OSError) as error:
        raise NotSentError(type(error).__name__) from None


def _run(command: list[str], alert: Alert) -> None:
    try:
        done = subprocess.run(
            command, input=codec.encode(alert).encode(), timeout=_COMMAND_SECONDS, capture_output=True, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotSentError(type(error).__name__) from None
    if done.returncode:
        raise NotSentError(f"the command ended with {done.returncode}")
