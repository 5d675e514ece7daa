"""Prompt files: what is refused with which line, and that values never become templates."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.base import errors
from ondol.formats import prompt as prompt_format
from ondol.formats.prompt import Message, Prompt
from ondol.prompts import git_view, library
from ondol.prompts.library import Prompts
from ondol.store.connection import Store

GOOD = """name: qa
version: "1.0.0"
template: |
  Context:
  {context}
  Question: {question}
input_variables:
  - context
  - question
metadata:
  model: gpt-4-turbo
"""


@pytest.fixture
def prompts(tmp_path: Path) -> Prompts:
    return Prompts(Store(tmp_path / "ondol.db"))


def write(folder: Path, text: str, name: str = "qa.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_prompt_of_the_guide_is_read() -> None:
    prompt = prompt_format.parse(GOOD)
    assert (prompt.name, prompt.version, prompt.input_variables) == ("qa", "1.0.0", ("context", "question"))
    assert prompt.metadata == {"model": "gpt-4-turbo"}


@pytest.mark.parametrize(
    ("change", "code", "where", "word"),
    [
        (("{question}", "{query}"), "INP-053", "p.yaml:6", "'query'"),
        (("  - question\n", ""), "INP-053", "p.yaml:6", "'question'"),
        (("  - question\n", "  - question\n  - k\n"), "INP-053", "p.yaml:7", "'k'"),
        (("version:", "verison:"), "UNS-050", "p.yaml:2", "'verison'"),
        (("{question}", "{question"), "INP-051", "p.yaml", "template"),
        (("{question}", "{question.__class__}"), "INP-051", "p.yaml:6", "__class__"),
        (('"1.0.0"', "1.0"), "INP-052", "p.yaml:2", "1.0"),
        (("name: qa\n", ""), "INP-052", "p.yaml", "name"),
        (("name: qa", "name: [qa"), "INP-050", "p.yaml", "YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(change: tuple[str, str], code: str, where: str, word: str) -> None:
    with pytest.raises(errors.InputError) as caught:
        prompt_format.parse(GOOD.replace(*change), "p.yaml")
    assert caught.value.code == code
    assert caught.value.where.startswith(where)
    assert word in str(caught.value)


def test_messages_and_jinja_are_read_and_rendered() -> None:
    text = """name: chat
template_format: jinja2
messages:
  - {role: system, content: "Be brief."}
  - role: human
    content: "{% for d in docs %}[{{ d }}]{% endfor %} {{ question }}"
input_variables: [docs, question]
input_types: {docs: array}
"""
    prompt = prompt_format.parse(text)
    made = library.render_messages(prompt, {"docs": ["a", "b"], "question": "q?"})
    assert made == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "[a][b] q?"}]
    with pytest.raises(errors.InputError, match="'docs' must be array"):
        library.render(prompt, {"docs": "a", "question": "q"})


def test_a_jinja_template_cannot_reach_into_python() -> None:
    prompt = Prompt("evil", ("x",), "{{ x.__class__.__mro__ }}", template_format="jinja2")
    with pytest.raises(errors.InputError, match="cannot be rendered"):
        library.render(prompt, {"x": "a"})


def test_missing_and_extra_variables_are_named() -> None:
    prompt = prompt_format.parse(GOOD)
    with pytest.raises(errors.InputError, match="'question'") as missing:
        library.render(prompt, {"context": "c"})
    assert missing.value.code == "INP-054"
    with pytest.raises(errors.InputError, match="'k'") as extra:
        library.render(prompt, {"context": "c", "question": "q", "k": 1})
    assert extra.value.code == "INP-055"


@given(st.text(), st.text())
def test_values_are_put_in_as_they_are(context: str, question: str) -> None:
    prompt = prompt_format.parse(GOOD)
    made = library.render(prompt, {"context": context, "question": question})
    assert made == f"Context:\n{context}\nQuestion: {question}\n"


_words = st.text(alphabet="abc 가나다{}:#'\"-\n", max_size=40)


@given(_words, _words)
def test_a_written_prompt_reads_back_the_same(template: str, description: str) -> None:
    body = template.replace("{", "{{").replace("}", "}}") + " {x}"
    prompt = Prompt("p", ("x",), messages=(Message("user", body),), description=description)
    assert prompt_format.parse(prompt_format.dump(prompt)) == prompt


def test_unchanged_content_makes_no_commit_and_a_revert_makes_one(prompts: Prompts, tmp_path: Path) -> None:
    first = prompts.push(write(tmp_path, GOOD), "first")
    again = prompts.push(write(tmp_path, "# a comment\n" + GOOD), "again")
    changed = prompts.push(write(tmp_path, GOOD.replace("Context:", "Documents:")))
    reverted = prompts.push(write(tmp_path, GOOD), "back")
    assert (first.new, again.new, changed.new, reverted.new) == (True, False, True, True)
    assert again.digest == first.digest
    assert reverted.content == first.content
    assert reverted.digest != first.digest
    assert [commit.parent for commit in prompts.history("qa")] == [changed.digest, first.digest, ""]


def test_every_kind_of_reference_finds_its_commit(prompts: Prompts, tmp_path: Path) -> None:
    one = prompts.push(write(tmp_path, GOOD))
    two = prompts.push(write(tmp_path, GOOD.replace("1.0.0", "2.0.0")))
    prompts.tag("qa@v1", "production")
    for ref in ("qa@v1", "qa:v1", "qa@production", "qa@1.0.0", f"qa@{one.digest}", f"qa@{one.digest[7:19]}"):
        assert prompts.get(ref).digest == one.digest
    assert prompts.get("qa").digest == prompts.get("qa@latest").digest == two.digest
    assert prompts.tag("qa@v2", "production")[1] == one.digest
    assert prompts.get("qa@production").tags == ("production",)


@pytest.mark.parametrize("ref", ["qa@nope", "qa@v9", "other", "qa@abcdef12"])
def test_an_unknown_reference_says_what_there_is(prompts: Prompts, tmp_path: Path, ref: str) -> None:
    prompts.push(write(tmp_path, GOOD))
    with pytest.raises(errors.NotFoundError) as caught:
        prompts.get(ref)
    assert caught.value.way_out


@pytest.mark.parametrize("tag", ["latest", "v1", "abcdef0", "with space", ""])
def test_a_tag_is_never_mistaken_for_another_reference(prompts: Prompts, tmp_path: Path, tag: str) -> None:
    prompts.push(write(tmp_path, GOOD))
    with pytest.raises(errors.InputError):
        prompts.tag("qa", tag)


def test_a_folder_is_pushed_whole_or_not_at_all(prompts: Prompts, tmp_path: Path) -> None:
    write(tmp_path / "p", GOOD, "a.yaml")
    write(tmp_path / "p", GOOD.replace("name: qa", "name: b").replace("{question}", "{q}"), "b.yaml")
    with pytest.raises(errors.InputError):
        prompts.push_all(tmp_path / "p")
    assert prompts.newest() == []
    write(tmp_path / "p", GOOD.replace("name: qa", "name: b"), "b.yaml")
    assert [commit.name for commit in prompts.push_all(tmp_path / "p")] == ["qa", "b"]


def test_a_diff_shows_the_change_and_pull_gives_the_file_back(prompts: Prompts, tmp_path: Path) -> None:
    prompts.push(write(tmp_path, GOOD))
    prompts.push(write(tmp_path, GOOD.replace("Context:", "문서:")))
    diff = prompts.diff("qa@v1", "qa@v2")
    assert "-  Context:" in diff
    assert "+  문서:" in diff
    assert prompts.get("qa@v1").text == GOOD


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"name: x\n" * 200_000, b""])
def test_binary_huge_and_empty_files_are_one_clear_error(prompts: Prompts, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with pytest.raises(errors.InputError) as caught:
        prompts.push(path)
    assert str(path) in caught.value.where


def test_git_view_knows_a_file_of_a_repository(tmp_path: Path) -> None:
    import subprocess

    path = write(tmp_path, GOOD)
    assert git_view.state(path) is None
    commands = (
        ["init", "-q", "-b", "main"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"],
    )
    for command in commands:
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    state = git_view.state(path)
    assert state is not None
    assert (state.branch, bool(state.commit), state.changed) == ("main", True, False)
    write(tmp_path, GOOD + "# changed\n")
    changed = git_view.state(path)
    assert changed is not None
    assert changed.changed
