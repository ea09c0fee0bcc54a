"""The text of the prompt, from the options or a file."""

import os
import shlex

from vlmbatch.config.groups import DEFAULT_PROMPT, PromptOptions
from vlmbatch.config.text_file import read_text
from vlmbatch.errors import ConfigError


def prompt_text(options: PromptOptions) -> str:
    """The content of the prompt file without its last line break, else the prompt typed, else the default.

    All other characters of the file are kept, also other line breaks of any kind.

    Raises:
        ConfigError: the file cannot be read, is not UTF-8, or is empty; or the prompt is the name of a file.
    """
    if options.prompt_file is None:
        prompt = options.prompt or DEFAULT_PROMPT
        looks_like_a_path = "." in prompt or os.sep in prompt
        if looks_like_a_path and os.path.isfile(prompt):  # noqa: PTH113  # Path raises for a long name
            raise ConfigError(
                f"--prompt {prompt} is the name of a file; type --prompt-file {shlex.quote(prompt)}"
            )
        return prompt
    try:
        text = read_text(options.prompt_file)
    except OSError as error:
        raise ConfigError(
            f"--prompt-file {options.prompt_file} cannot be read: {error.strerror}; check its path"
        ) from error
    except UnicodeDecodeError as error:
        told = f"--prompt-file {options.prompt_file} is not UTF-8 text ({error.reason}); write it in UTF-8"
        raise ConfigError(told) from error
    if not text.strip():
        raise ConfigError(
            f"--prompt-file {options.prompt_file} is empty; write a prompt into it, or leave it out"
        )
    return text.removesuffix("\n").removesuffix("\r")
