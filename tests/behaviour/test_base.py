"""Errors, settings, hashing, ids and the public names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ondol
from ondol.base import errors, hashing, ids, settings


def every_error_class() -> list[type[errors.OndolError]]:
    found: list[type[errors.OndolError]] = []
    todo = [errors.OndolError]
    while todo:
        one = todo.pop()
        if one.__module__ == errors.__name__:  # a door may have a private kind of its own
            found.append(one)
        todo.extend(one.__subclasses__())
    return found


def test_the_exception_tree_is_drawn_and_its_codes_differ() -> None:
    drawn = errors.__doc__ or ""
    classes = every_error_class()
    codes = [one.default_code for one in classes]
    assert len(set(codes)) == len(codes)
    for one in classes:
        assert one.__name__ in drawn
        assert one.exit_code in (1, 2)


def test_public_names_exist_and_are_sorted() -> None:
    assert list(ondol.__all__) == sorted(ondol.__all__)
    for name in ondol.__all__:
        assert getattr(ondol, name) is not None
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = ondol.nothing_like_it


def test_importing_ondol_loads_nothing_heavy() -> None:
    code = (
        "import sys, ondol, ondol.cli.main; "
        "print(sorted({'mlflow','kfp','sklearn','pandas','numpy','rich','starlette','httpx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_digests_do_not_depend_on_key_order(value: object) -> None:
    if isinstance(value, dict):
        assert hashing.of_json(value) == hashing.of_json(dict(reversed(value.items())))
    assert hashing.of_json(value).startswith("sha256:")


def test_a_tree_digest_sees_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    first = hashing.of_tree(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("cache")
    assert hashing.of_tree(tmp_path) == first
    (tmp_path / "a").rename(tmp_path / "b")
    assert hashing.of_tree(tmp_path) != first


def test_ids_are_unique_and_sort_by_time() -> None:
    made = [ids.new_id("run") for _ in range(2000)]
    assert len(set(made)) == 2000
    assert [one[:14] for one in made] == sorted(one[:14] for one in made)


@pytest.mark.parametrize(
    ("text", "host", "port"), [("127.0.0.1:80", "127.0.0.1", 80), (":81", "127.0.0.1", 81), ("82", "127.0.0.1", 82)]
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert settings.parse_address(text) == settings.Address(host, port)


@pytest.mark.parametrize("text", ["", "host:", "host:x", "host:70000", "-1"])
def test_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(errors.UsageError, match="HOST:PORT"):
        settings.parse_address(text)


def test_home_is_beside_the_project_file_or_where_the_environment_says(tmp_path: Path) -> None:
    (tmp_path / "ondol.yaml").write_text("name: x")
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    assert settings.load(inside, {}).home == tmp_path.resolve() / ".ondol"
    assert settings.load(inside, {"ONDOL_HOME": str(tmp_path / "h")}).home == (tmp_path / "h").resolve()
