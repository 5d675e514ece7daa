"""Seeing through disguises: one plain form of a text, and what its encoded parts say.

Full-width letters, zero-width characters, Unicode tags, look-alike letters, spaced-out words, leet; base64, hex,
percent, rot13 and reversed text. Must not decide anything. Every pattern is linear: a hostile text costs no more.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import unicodedata
from urllib.parse import unquote

_LOOKALIKES = str.maketrans(
    "аеорсухіјѕԁһӏԛԝвмнтκΑΒΕΖΗΙΚΜΝΟΡΤΥΧαοερνυιτωɑɡıĺ",
    "aeopcyxijsdhlqwbmhtkABEZHIKMNOPTYXaoepvuitwagil",
)
_LEET = str.maketrans("013457@$!", "oieastasi")
_INVISIBLE = (
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10),
    *range(0xE0100, 0xE01F0),
    *(0xFEFF, 0xAD, 0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x3164, 0xFFA0),
)
_ZERO_WIDTH = dict.fromkeys(_INVISIBLE)
_TAGS = {0xE0000 + point: chr(point) for point in range(0x20, 0x7F)}
_HIDDEN = _ZERO_WIDTH | _TAGS
_HIDDEN_CHARS = frozenset(map(chr, _HIDDEN))
_SPACE = re.compile(r"\s+")
_SPACED_LATIN = re.compile(r"(?<![^\W\d_])[^\W\d_](?:[ .\-_*\\/|·,]{1,2}[^\W\d_](?![^\W\d_])){4,}")
_SPACED_HANGUL = re.compile(r"(?<![가-힣])[가-힣](?:[ .\-_*\\/|·,~^]{1,2}[가-힣](?![가-힣])){3,}")
_BROKEN_HANGUL = re.compile(r"(?<=[가-힣])[.\-_*/|·~^]+(?=[가-힣])")
_FOREIGN_WORD = re.compile(r"[^\W\d_]{2,48}")
_LOOKALIKE = re.compile(r"[\u0131\u013a\u0250-\u03ff\u0400-\u052f]")
_LEET_SIGN = re.compile(r"[A-Za-z][013457@$]+[A-Za-z]")
_LEET_WORD = re.compile(r"(?<![\w@$!])[\w@$!]{3,32}(?![\w@$!])")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX = re.compile(r"(?:(?:\\x|0x)?[0-9a-fA-F]{2}[ ,]?){12,}")
_ESCAPE = re.compile(r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}")
_ROT13_SIGNS = ("vtaber", "vafgehpgvba", "flfgrz", "cebzcg", "cnffjbeq", "erirny")
_REVERSED_SIGNS = ("erongi", "snoitcurtsni", "metsys", "tpmorp", "drowssap", "laever")
_LIMIT = 8  # decoded pieces looked at per text: enough to find one, not enough to be kept busy


def _unmix(match: re.Match[str]) -> str:
    """A word of Latin and look-alike letters as Latin; a wholly Cyrillic or Greek word stays."""
    word = match[0]
    if word.isascii() or not any(char.isascii() for char in word):
        return word
    return word.translate(_LOOKALIKES)


def _unleet(match: re.Match[str]) -> str:
    word = match[0]
    letters = sum("a" <= char.lower() <= "z" for char in word)
    inside = any(char in "013457@$" for char in word[1:-1])
    return word.translate(_LEET) if inside and letters >= 2 and letters * 2 >= len(word) else word


def _spaced(match: re.Match[str]) -> str:
    return re.sub(r"[ .\-_*\\/|·,~^]", "", match[0])


def plain(text: str) -> str:
    """Return the text in one plain form: NFKC, nothing hidden, look-alikes folded, spaced words joined, lower case."""
    if text.isascii():
        folded = text
    else:
        seen = text if _HIDDEN_CHARS.isdisjoint(text) else text.translate(_HIDDEN)
        folded = unicodedata.normalize("NFKC", seen)
        if not folded.isascii():
            if _LOOKALIKE.search(folded):
                folded = _FOREIGN_WORD.sub(_unmix, folded)
            folded = _SPACED_HANGUL.sub(_spaced, folded)
            folded = _BROKEN_HANGUL.sub("", folded)
    if _SPACED_LATIN.search(folded):
        folded = _SPACED_LATIN.sub(_spaced, folded)
    if _LEET_SIGN.search(folded):
        folded = _LEET_WORD.sub(_unleet, folded)
    return _SPACE.sub(" ", folded).strip().lower()


def _readable(data: bytes) -> str:
    """The bytes as text when they look like words, else nothing."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    letters = sum(char.isalpha() or char in " ,.'!?" for char in text)
    return text if len(text) >= 6 and letters >= 0.85 * len(text) else ""


def _base64(text: str) -> str:
    padded = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return _readable(base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True))
    except (ValueError, binascii.Error):
        return ""


def _hex(text: str) -> str:
    digits = re.sub(r"\\x|0x|[ ,]", "", text)
    try:
        return _readable(bytes.fromhex(digits))
    except ValueError:
        return ""


def decoded(text: str) -> list[str]:
    """Return what encoded parts of the text say, plain; empty for ordinary text."""
    found = [_base64(match[0]) for _, match in zip(range(_LIMIT), _BASE64.finditer(text), strict=False)]
    found += [_hex(match[0]) for _, match in zip(range(_LIMIT), _HEX.finditer(text), strict=False)]
    if text.count("%") >= 4:
        found.append(unquote(text))
    if _ESCAPE.search(text):
        found.append(_ESCAPE.sub(lambda match: chr(int(match[0][2:], 16)), text))
    lower = text.lower()
    if any(sign in lower for sign in _ROT13_SIGNS):
        found.append(codecs.decode(text, "rot13"))
    if any(sign in lower for sign in _REVERSED_SIGNS):
        found.append(text[::-1])
    return [plain(piece) for piece in found if piece and piece != text]


_DIGIT_FOLD = str.maketrans("０１２３４５６７８９－ー–—−‐‑＠．", "0123456789-------@.")


def same_length(text: str) -> str:
    """Return the text with full-width digits and odd dashes made plain, every character in its place."""
    return text if text.isascii() else text.translate(_DIGIT_FOLD)
