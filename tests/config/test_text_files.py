"""Text files of a user as programs on Windows write them: with a byte order mark, in UTF-16, with CRLF."""

import codecs
from collections.abc import Callable
from pathlib import Path

import pytest

from vlmbatch.backends.litellm.deployments import deployments_in
from vlmbatch.config.groups import PromptOptions
from vlmbatch.config.settings_file import read_settings
from vlmbatch.endpoints.cost import Prices
from vlmbatch.endpoints.discovery import EndpointUrls
from vlmbatch.errors import ConfigError
from vlmbatch.prompts import prompt_text
from vlmbatch.prompts.schemas import schema_text

ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "UTF-8": str.encode,
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16 LE": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16 BE": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
}
Reads = Callable[[str], object]
FILES: dict[str, tuple[str, Reads, object]] = {
    "--prompt-file": (
        "Name the objects \u732b.\n",
        lambda path: prompt_text(PromptOptions(prompt_file=path)),
        "Name the objects \u732b.",
    ),
    "--schema": ('{"type":"object"}\n', schema_text, '{"type":"object"}'),
    "--base-url": (
        "# \u732b\nhttp://gpu1:8000/v1\nhttp://gpu2:8000/v1\n",
        lambda path: EndpointUrls([path]).read(),
        ("http://gpu1:8000/v1", "http://gpu2:8000/v1"),
    ),
    "--prices": (
        '{"\u732b": {"input_cost_per_token": 1, "output_cost_per_token": 2}}',
        lambda path: Prices(path).of("\u732b").output,
        2.0,
    ),
    "--litellm-config": (
        "model_list:\n- model_name: \u732b\n  litellm_params:\n    model: openai/x\n",
        lambda path: [found.model for found in deployments_in(path, "\u732b", {})],
        ["openai/x"],
    ),
    "--config": (
        '# \u732b\nmodel = "llava"\nquality = 7\n',
        lambda path: read_settings(path).values,
        {"model": "llava", "quality": 7},
    ),
}


@pytest.mark.parametrize("flag", FILES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_text_file_is_read_in_each_encoding(tmp_path: Path, flag: str, encoding: str) -> None:
    """Each file of an option means the same with and without a byte order mark, in UTF-16 and with CRLF."""
    text, read, expected = FILES[flag]
    path = tmp_path / "file"
    path.write_bytes(ENCODINGS[encoding](text))
    assert read(str(path)) == expected


@pytest.mark.parametrize("flag", FILES)
@pytest.mark.parametrize(
    "content", [b"caf\xe9", codecs.BOM_UTF16_LE + b"a", "cafe".encode("utf-16-le"), "a".encode("utf-32")]
)
def test_a_file_that_is_no_such_text_is_an_error(tmp_path: Path, flag: str, content: bytes) -> None:
    """A file in another encoding, cut in a character, or without its mark is an error that names the file."""
    _, read, _ = FILES[flag]
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="file"):
        read(str(path))
