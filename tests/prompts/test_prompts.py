"""The text of the prompt."""

from pathlib import Path

import pytest

from vlmbatch.config.groups import DEFAULT_PROMPT, PromptOptions
from vlmbatch.errors import ConfigError
from vlmbatch.prompts import prompt_text


def test_the_prompt_typed_is_sent_as_typed() -> None:
    """The prompt is sent as typed, with every blank."""
    assert prompt_text(PromptOptions(prompt="  What is\nthis? ")) == "  What is\nthis? "


def test_without_a_prompt_the_default_is_used() -> None:
    """A run without a prompt uses the default one."""
    assert prompt_text(PromptOptions()) == DEFAULT_PROMPT


def test_a_file_is_read_whole_without_its_last_line_break(tmp_path: Path) -> None:
    """A prompt file is used as it is, but without the last line break that editors add."""
    for content in ("Über zwei\nZeilen", "\r\nEins\rzwei \u2028\r\n\r\n", "Eins\n\n"):
        for end in ("\n", "\r\n"):
            (tmp_path / "p.txt").write_bytes((content + end).encode())
            assert prompt_text(PromptOptions(prompt_file=str(tmp_path / "p.txt"))) == content


@pytest.mark.parametrize(
    ("content", "told"), [(None, "No such file"), (b"\xff\xfe\x00", "not UTF-8"), (b" \n", "is empty")]
)
def test_an_unusable_prompt_file_is_named(tmp_path: Path, content: bytes | None, told: str) -> None:
    """A missing, binary or empty prompt file is an error with its name."""
    if content is not None:
        (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=f"p.txt.*{told}"):
        prompt_text(PromptOptions(prompt_file=str(tmp_path / "p.txt")))


def test_the_name_of_a_file_is_no_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that is the name of a file is an error that names --prompt-file; a single word is a prompt."""
    (tmp_path / "my prompt.txt").write_text("What is this?")
    name = str(tmp_path / "my prompt.txt")
    with pytest.raises(ConfigError, match=rf"is the name of a file; type --prompt-file '{name}'"):
        prompt_text(PromptOptions(prompt=name))
    assert prompt_text(PromptOptions(prompt="x." * 5000)) == "x." * 5000
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Animal").write_text("cat")
    assert prompt_text(PromptOptions(prompt="Animal")) == "Animal"
