"""GJSON paths: what the original answers for each of these paths, and a walk that nothing can break."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.formats import gjson
from ondol.formats.gjson import MISSING

BLUE = {"intval": 3, "strval": "blue-cup", "tags": ["a", "b"]}
RED = {"intval": 12, "strval": "my-red-server-1", "tags": []}
GREEN = {"intval": 12, "strval": "green", "tags": ["b"], "deep": {"x.y": [[1], [2, 3]]}}
DOCUMENT = {
    "service": "flights",
    "ok": True,
    "none": None,
    "predictions": [0.2, 0.9, 0.5],
    "instances": [BLUE, RED, GREEN],
    "a.b": {"*": 1, "c": "[1,2]"},
    "empty": [],
    "flags": [0, 1, "true", "f", None, False, "other"],
}
# Every result was taken from the original, github.com/tidwall/gjson.
PATHS: list[tuple[str, Any]] = [
    ("service", "flights"),
    ("ok", True),
    ("none", None),
    ("missing", MISSING),
    ("service.x", MISSING),
    ("predictions.1", 0.9),
    ("predictions.01", 0.9),
    ("predictions.3", MISSING),
    ("predictions.-1", MISSING),
    ("predictions.#", 3),
    ("empty.#", 0),
    ("instances.#.intval", [3, 12, 12]),
    ("instances.#.deep", [GREEN["deep"]]),
    ("missing.#", MISSING),
    ("serv*", "flights"),
    ("ser?ice", "flights"),
    ("*.0.strval", "blue-cup"),
    (r"a\.b.c", "[1,2]"),
    (r"a\.b.\*", 1),
    ("a.b", MISSING),
    ("instances.#(intval>10)", RED),
    ("instances.#(intval>10)#", [RED, GREEN]),
    ("instances.#(intval>10)#.strval", ["my-red-server-1", "green"]),
    ("instances.#(intval>99)", MISSING),
    ("instances.#(intval>99)#", []),  # an empty list is there
    ("instances.#(strval%*red-server*)", RED),
    ('instances.#(strval!%"*e*")', MISSING),
    ('instances.#(strval=="green").intval', 12),
    (r"instances.#(strval==green).deep.x\.y.1", [2, 3]),
    ('instances.#(tags.#(=="b"))#.strval', ["blue-cup", "green"]),
    ("instances.#(tags.#>1).strval", "blue-cup"),
    ("instances.#(deep)", GREEN),
    ("instances.#(deep).missing", MISSING),
    ('instances.#(strval>"h").strval', "my-red-server-1"),
    ('instances.#(intval!="x")', BLUE),
    ("predictions.#(>=0.5)", 0.9),
    ("predictions.#(>=0.5)#", [0.9, 0.5]),
    ("predictions.#(<0)", MISSING),
    ("flags.#(==~true)#", [1, "true"]),
    ("flags.#(==~false)#", [0, "f", None, False]),
    ("flags.#(==~null)#", [None]),
    ("flags.#(!=~*)", MISSING),
    ("instances.#(intval>10)#|0.strval", "my-red-server-1"),
    ("instances.#(intval>10)#|#", 2),
    ("instances.#(intval>10)#.#", []),
    ("instances|@reverse.0.strval", "green"),
    ("@this.service", "flights"),
    ("[@this].#(service==flights).ok", True),
    ("[@this].#(service==client)", MISSING),
    ('{service,"n":predictions.#}', {"service": "flights", "n": 3}),
    ('{service,"n":predictions.#}.n', 3),
    ("[missing]", []),
    (r"a\.b.c.@fromstr.1", 2),
    (r"instances.2.deep.x\.y.@flatten", [1, 2, 3]),
    ("@keys.0", "service"),
    ("@values.#", 8),
    ("instances.@join.intval", 12),
    ("missing.@keys", []),
    ("@nothing", MISSING),
]


@pytest.mark.parametrize(("path", "expected"), PATHS)
def test_a_path_leads_where_the_original_leads(path: str, expected: Any) -> None:
    assert gjson.refusal(path) == ""
    found = gjson.get(DOCUMENT, path)
    assert (found is MISSING) == (expected is MISSING)
    assert gjson.exists(DOCUMENT, path) == (expected is not MISSING)
    assert found is MISSING or (found == expected and type(found) is type(expected))


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("..0", "JSON lines"),
        ("a.!true", "literals"),
        ("a|@dig:x", "@dig"),
        ("a.#(@tostr==1)", "@tostr"),
        ('@flatten:{"deep":true}', "arguments"),
        ("a.#(b>1", "do not close"),
        ("[" * 30 + "a" + "]" * 30, "too deeply"),
    ],
)
def test_what_is_not_understood_is_named(path: str, named: str) -> None:
    assert named in gjson.refusal(path)


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab.*#@", max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(document=documents, path=st.text('ab01.|#()[]{}*?\\"@:=<>%!~,thisky', max_size=25))
def test_no_path_and_no_document_break_the_walk(document: Any, path: str) -> None:
    found = gjson.get(document, path)
    assert gjson.exists(document, path) == (found is not MISSING)


@given(document=st.dictionaries(st.text(max_size=6), documents, min_size=1, max_size=4), data=st.data())
def test_an_escaped_key_is_found_whatever_is_in_it(document: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(document)))
    # a backslash before every character keeps it from meaning anything
    path = "".join("\\" + char for char in key)
    assert gjson.get(document, path) == document[key]
