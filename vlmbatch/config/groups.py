"""What is asked, and whom: options in groups, whose fields hold flag, help, environment variable, TOML key.

The command line (cli/options.py), vlmbatch.toml and the option table of the README are made from the
fields here and in run_options.py, so they cannot drift apart. Values are checked when a group is made.
"""

from dataclasses import dataclass

from vlmbatch.config.spec import (
    AUTO,
    flag,
    option,
    parse_accept,
    parse_pixels,
    parse_side,
    parse_size,
    require,
)

DEFAULT_PROMPT = "Describe this image."
USUAL_SIDE = 1024
"""Pixels of the longest side that is sent where nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """Which images are taken."""

    include: tuple[str, ...] = option(
        (), "Take only images whose path or name matches this glob (repeatable).", metavar="GLOB"
    )
    exclude: tuple[str, ...] = option(
        (), "Leave out images and folders that match this glob (repeatable).", metavar="GLOB"
    )
    limit: int | None = option(None, "Stop after this many images that needed asking.", metavar="N")
    max_bytes: int = option(
        100_000_000, "Refuse files larger than this.", metavar="SIZE", parse=parse_size, shown_default="100MB"
    )

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit > 0, f"--limit must be at least 1, not {self.limit}")
        require(self.max_bytes > 0, f"--max-bytes must be more than 0, not {self.max_bytes}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOptions:
    """What is asked about every image."""

    prompt: str | None = option(
        None, "What to ask about each image.", short="-p", metavar="TEXT", shown_default=DEFAULT_PROMPT
    )
    prompt_file: str | None = option(None, "Read the prompt from this file instead.", metavar="FILE")
    system: str | None = option(None, "A system message sent with each image.", metavar="TEXT")

    def __post_init__(self) -> None:
        require(
            self.prompt is None or self.prompt_file is None,
            "--prompt and --prompt-file are both set; keep one of them",
        )
        for name in ("prompt", "system"):
            text = getattr(self, name) or ""
            require(text.isascii() or _is_text(text), f"{flag(name)} is not valid UTF-8 text")
        require(
            self.prompt is None or bool(self.prompt.strip()),
            "--prompt is empty; say what to ask about each image",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How answers are generated."""

    max_tokens: int = option(512, "Cut an answer after this many tokens.", metavar="N")
    temperature: float = option(0.0, "0 for the likeliest words, higher for more variety.", metavar="T")
    seed: int | None = option(None, "Seed of the random choices above temperature 0.", metavar="N")
    num_ctx: int | None = option(
        None, "Context length in tokens that Ollama or llama-cpp makes room for.", metavar="N"
    )
    schema: str | None = option(
        None,
        "Answers have to be JSON that fits this JSON Schema: a file, or the schema itself.",
        metavar="FILE|JSON",
    )
    logprobs: int | None = option(
        None,
        "Record how sure the model was of each token, and of so many alternatives to it (0 to 20).",
        metavar="N",
    )
    accept: str = option(
        "",
        "Take answers with these flaws: length (cut by --max-tokens), loop (repeats itself).",
        metavar="FLAWS",
        parse=parse_accept,
        shown_default="none",
    )

    def __post_init__(self) -> None:
        require(self.max_tokens > 0, f"--max-tokens must be at least 1, not {self.max_tokens}")
        require(
            0 <= self.temperature <= 2, f"--temperature must be between 0 and 2, not {self.temperature:g}"
        )
        require(self.num_ctx is None or self.num_ctx > 0, f"--num-ctx must be at least 1, not {self.num_ctx}")
        require(
            self.logprobs is None or 0 <= self.logprobs <= 20,
            f"--logprobs must be between 0 and 20, not {self.logprobs}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """How pictures are prepared."""

    max_size: int | None = option(
        None,
        "Shrink to this longest side in pixels; auto: as suits the model's tokens; 0: not at all.",
        metavar="PIXELS|auto",
        parse=parse_side,
        shown_default=f"{USUAL_SIDE}, unless the next two say another limit",
    )
    max_pixels: int | None = option(
        None, "Shrink to this many pixels in all.", metavar="N", parse=parse_pixels
    )
    image_tokens: int | None = option(
        None, "Shrink until a picture costs at most this many of the model's tokens.", metavar="N"
    )
    max_pixels_in: int = option(
        200_000_000,
        "Refuse images that would decode to more pixels than this.",
        metavar="N",
        parse=parse_pixels,
        shown_default="200MP",
    )
    quality: int = option(85, "JPEG quality of what is sent, 1 to 100.", metavar="N")

    def __post_init__(self) -> None:
        require(
            self.max_size in (None, AUTO, 0) or 32 <= (self.max_size or 0) <= 65500,
            f"--max-size must be auto, 0 or between 32 and 65500 pixels, not {self.max_size}",
        )
        require(
            self.max_pixels is None or self.max_pixels >= 32 * 32,
            f"--max-pixels must be at least 1024, not {self.max_pixels}",
        )
        require(
            self.image_tokens is None or self.image_tokens > 0,
            f"--image-tokens must be at least 1, not {self.image_tokens}",
        )
        require(1 <= self.quality <= 100, f"--quality must be between 1 and 100, not {self.quality}")
        require(self.max_pixels_in > 0, f"--max-pixels-in must be more than 0, not {self.max_pixels_in}")


def _is_text(text: str) -> bool:
    """Whether it can be sent as UTF-8: bytes of another encoding on a command line become surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
