"""Personal data: patterns with checksums, in Korean and English text; found with spans, masked in place.

A Korean particle may follow directly ("010-1234-5678로"), so ends are checked against digits and Latin letters only.
Names and addresses are not found: that needs a language model. Must not keep what it finds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ondol.formats import rails_names
from ondol.guardrails import normalize
from ondol.guardrails.decision import Span

_START, _END = r"(?<![0-9A-Za-z_.-])", r"(?![0-9A-Za-z_]|[-.][0-9])"


@dataclass(frozen=True, slots=True)
class Recogniser:
    """One kind of personal data."""

    kind: str
    pattern: re.Pattern[str]
    score: Callable[[str, str], float]
    """From the matched text and the 24 characters before it: how sure, 0 for not at all."""

    needs: Callable[[str], bool]
    """A cheap test that must hold for the text before the pattern is tried."""


def luhn(digits: str) -> bool:
    """Return whether the digits pass Luhn's check (ISO/IEC 7812-1)."""
    total = 0
    for index, char in enumerate(reversed(digits)):
        value = int(char) * (2 if index % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def rrn_checksum(digits: str) -> bool:
    """Return whether 13 digits pass the checksum of Korean resident registration numbers (issued before Oct 2020)."""
    total = sum(int(char) * weight for char, weight in zip(digits, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), strict=False))
    check = (11 - total % 11) % 10
    foreign = (13 - total % 11) % 10
    return int(digits[12]) == (foreign if digits[6] in "5678" else check)


def iban_checksum(text: str) -> bool:
    """Return whether an IBAN passes ISO 7064 mod 97-10."""
    turned = text[4:] + text[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def brn_checksum(digits: str) -> bool:
    """Return whether 10 digits pass the checksum of Korean business registration numbers."""
    weights = (1, 3, 7, 1, 3, 7, 1, 3, 5)
    total = sum(int(char) * weight for char, weight in zip(digits, weights, strict=False)) + int(digits[8]) * 5 // 10
    return (10 - total % 10) % 10 == int(digits[9])


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _rrn(found: str, before: str) -> float:
    digits = _digits(found)
    month, day = int(digits[2:4]), int(digits[4:6])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return 0.0
    if rrn_checksum(digits):
        return 1.0
    # Since October 2020 the last digits are random: the checksum no longer rules a number out when it is written
    # as one (with its dash) or named.
    return 0.85 if "-" in found or re.search(r"주민|외국인|등록\s?번호|resident", before) else 0.0


def _card(found: str, before: str) -> float:
    digits = _digits(found)
    if not 12 <= len(digits) <= 19 or len(set(digits)) < 2:
        return 0.0
    known = digits[0] in "3456" or digits.startswith(("1800", "2131", "22", "23", "24", "25", "26", "27"))
    named = re.search(r"카드|card|visa|master|amex", before, re.IGNORECASE)
    if luhn(digits):
        return 1.0 if known else (0.8 if named else 0.0)
    return 0.6 if named and len(digits) >= 15 and known else 0.0


_DATED = re.compile(r"(?:19|20)\d\d[-. ]{1,2}(?:0?[1-9]|1[0-2])[-. ]{1,2}(?:0?[1-9]|[12]\d|3[01])(?!\d)")


def _phone(found: str, before: str) -> float:
    digits = _digits(found)
    if _DATED.match(found):
        return 0.0
    if found.startswith("+"):
        return 0.95 if 8 <= len(digits) <= 15 else 0.0
    if re.match(r"01[016789]", digits) and len(digits) in (10, 11):
        return 1.0
    if re.match(r"(?:02|0[3-6][1-5]|070|050\d)", digits) and 9 <= len(digits) <= 12 and re.search(r"[-.)\s]", found):
        return 0.95
    if re.fullmatch(r"1[568]\d{2}[- ]\d{4}", found):
        return 0.9
    named = re.search(
        r"전화|연락처|휴대폰|핸드폰|번호[는은:]|팩스|\b(?:phone|tel|call|mobile|cell|fax|contact|reach|number|dial|text|ring)\b|☎|📞",
        before, re.IGNORECASE,
    )  # fmt: skip
    grouped = len(re.findall(r"\d+", found)) >= 3
    if 9 <= len(digits) <= 12 and grouped and re.fullmatch(r"\(?\d{2,4}\)?(?:[ .-]\d{2,4}){2,4}", found):
        return 0.9 if named else 0.75
    return 0.8 if named and 7 <= len(digits) <= 15 else 0.0


def _ip(found: str, _: str) -> float:
    import ipaddress

    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return 0.0
    return 0.0 if address.is_loopback or address.is_unspecified else 0.9


def _iban(found: str, _: str) -> float:
    compact = found.replace(" ", "").upper()
    return 1.0 if 15 <= len(compact) <= 34 and iban_checksum(compact) else 0.0


def _ssn(found: str, _: str) -> float:
    area, group, serial = found[:3], found[4:6], found[7:]
    return 0.0 if area in ("000", "666") or area > "899" or group == "00" or serial == "0000" else 0.9


def _brn(found: str, before: str) -> float:
    if not brn_checksum(_digits(found)):
        return 0.0
    return 0.95 if re.search(r"사업자|등록번호", before) else 0.8


def _account(_: str, before: str) -> float:
    banks = r"계좌|은행|국민|신한|우리|하나|농협|기업|카카오뱅크|토스|새마을|우체국|입금|송금|account"
    return 0.85 if re.search(banks, before, re.IGNORECASE) else 0.0


def _named(words: str, score: float) -> Callable[[str, str], float]:
    pattern = re.compile(words, re.IGNORECASE)
    return lambda _, before: score if pattern.search(before) else 0.0


def _always(score: float) -> Callable[[str, str], float]:
    return lambda *_: score


_ANY_DIGIT = re.compile(r"\d.*\d.*\d.*\d.*\d", re.DOTALL)


def _has_digits(text: str) -> bool:
    return _ANY_DIGIT.search(text) is not None


_KEYS = (
    r"sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{22,}|glpat-[\w-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35}|hf_[A-Za-z0-9]{30,}|lsv2_[a-z]{2}_[A-Za-z0-9_]{20,}"
    r"|ya29\.[\w-]{20,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{40,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{5,}"
    r"|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----[\s\S]{0,4000}?(?:-----END (?:[A-Z]+ )?PRIVATE KEY-----|$)"
    r"|(?<=://)[^\s:/@]{1,64}:[^\s:/@]{3,64}(?=@)"
)

_IBAN = r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"
_EMAIL = r"(?<![\w.+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9가-힣-]{1,63}\.){1,8}[A-Za-z]{2,24}"
_ADDRESS = r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{0,4})(?![0-9A-Za-z_:]|\.\d)"
_LICENCE = r"(?:1[1-9]|2[0-8])-\d{2}-\d{6}-\d{2}"
_PASSPORT = r"(?<![A-Za-z0-9])[MSRODG]\d{3}[A-Z0-9]\d{4}(?![A-Za-z0-9])"
_ACCOUNT = rf"{_START}\d{{2,6}}(?:-\d{{2,7}}){{1,3}}{_END}|{_START}\d{{10,14}}{_END}"
_PHONE = r"(?<![0-9A-Za-z_.-])\+?\(?\d(?:[ ().-]{0,2}\d){6,16}"


def _kind(
    kind: str, pattern: str, score: Callable[[str, str], float], needs: Callable[[str], bool] = _has_digits
) -> Recogniser:
    return Recogniser(kind, re.compile(pattern), score, needs)


RECOGNISERS: tuple[Recogniser, ...] = (
    _kind("API_KEY", rf"(?<![A-Za-z0-9])(?:{_KEYS})", _always(0.99), lambda _: True),
    _kind("EMAIL_ADDRESS", _EMAIL, _always(1.0), lambda text: "@" in text),
    _kind("IBAN_CODE", _START + _IBAN, _iban),
    _kind("KR_RRN", _START + r"\d{6}\s?-?\s?[1-8]\d{6}" + _END, _rrn),
    _kind("CREDIT_CARD", _START + r"\d(?:[ -]?\d){11,18}" + _END, _card),
    _kind("US_SSN", _START + r"\d{3}-\d{2}-\d{4}" + _END, _ssn),
    _kind("KR_BRN", _START + r"\d{3}-\d{2}-\d{5}" + _END, _brn),
    _kind("KR_DRIVER_LICENSE", _START + _LICENCE + _END, _always(0.95)),
    _kind("KR_PASSPORT", _PASSPORT, _named(r"여권|passport", 0.95)),
    _kind("BANK_ACCOUNT", _ACCOUNT, _account),
    _kind("IP_ADDRESS", _ADDRESS, _ip, lambda text: text.count(".") >= 3 or text.count(":") >= 3),
    _kind("PHONE_NUMBER", _PHONE + _END, _phone),
)
"""In the order of certainty: what one finds, a later one does not find again."""


def find(text: str, entities: Iterable[str] = (), floor: float = 0.0) -> list[Span]:
    """Return the personal data in the text, in order, without overlaps (the earlier recogniser wins).

    :param entities: only these kinds; empty for all.
    :param floor: findings less sure than this are left out.
    """
    wanted = set(entities)
    flat = normalize.same_length(text)
    taken: list[Span] = []
    for recogniser in RECOGNISERS:
        if (wanted and recogniser.kind not in wanted) or not recogniser.needs(flat):
            continue
        for match in recogniser.pattern.finditer(flat):
            start, end = match.span()
            if any(start < span.end and span.start < end for span in taken):
                continue
            score = recogniser.score(match[0].strip(), flat[max(0, start - 24) : start])
            if score > 0 and score >= floor:
                end = start + len(match[0].rstrip(" .-("))
                taken.append(Span(start, end, recogniser.kind, score))
    return sorted(taken, key=lambda span: span.start)


def mask(text: str, spans: Iterable[Span], token: str = "") -> str:
    """Return the text with every span replaced by `<KIND>`, or by `token` repeated over its length."""
    parts, position = [], 0
    for span in sorted(spans, key=lambda each: each.start):
        name = rails_names.ENTITIES.get(span.kind, span.kind)
        parts += [text[position : span.start], token * (span.end - span.start) if token else f"<{name}>"]
        position = span.end
    return "".join([*parts, text[position:]])
