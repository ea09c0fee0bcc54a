"""The options of input, prompt, generation and images, in groups.

Each field declares the flag, help, environment variable and TOML key of its option. The command line
(cli/options.py), vlmbatch.toml, the help and docs/options.md are made from these fields and from those of
endpoint.py, request.py and run.py, so they cannot differ. A group checks its values when it is created.
"""

from dataclasses import dataclass

from vlmbatch.config.spec import (
    AUTO,
    FLAWS,
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
"""The default longest side of a picture that is sent, in pixels."""


def is_schema_itself(text: str) -> bool:
    """Whether a --schema is a schema, and not the path of a file with one."""
    return text.lstrip().startswith("{")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """Which images a run processes."""

    include: tuple[str, ...] = option(
        (),
        "Use only images whose path or name matches this pattern, for example '*.jpg' (repeatable).",
        metavar="GLOB",
        harmless=True,
    )
    exclude: tuple[str, ...] = option(
        (),
        "Skip images and folders that match this pattern (repeatable).",
        metavar="GLOB",
        harmless=True,
    )
    limit: int | None = option(None, "Stop after this many new images.", metavar="N", harmless=True)
    allow_empty: bool = option(
        False,
        "Accept folders without any image. Otherwise such a run ends with exit code 2.",
        section="When something fails",
        harmless=True,
    )
    max_bytes: int = option(
        100_000_000,
        "Do not read image files that are larger than this.",
        metavar="SIZE",
        parse=parse_size,
        shown_default="100MB",
    )

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit > 0, f"--limit must be at least 1, not {self.limit}")
        require(self.max_bytes > 0, f"--max-bytes must be more than 0, not {self.max_bytes}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOptions:
    """The prompt for every image."""

    prompt: str | None = option(
        None,
        "The question about each image.",
        section="Options to know first",
        short="-p",
        metavar="TEXT",
        shown_default=DEFAULT_PROMPT,
        harmless=True,
    )
    prompt_file: str | None = option(None, "Read the prompt from this file.", metavar="FILE")
    system: str | None = option(
        None, "A system message that is sent with each image.", metavar="TEXT", harmless=True
    )

    def __post_init__(self) -> None:
        require(
            self.prompt is None or self.prompt_file is None,
            "--prompt and --prompt-file are both set; keep one of them",
        )
        for name in ("prompt", "system"):
            text = getattr(self, name) or ""
            require(text.isascii() or _is_text(text), f"{flag(name)} is not UTF-8 text; write it in UTF-8")
        require(
            self.prompt is None or bool(self.prompt.strip()),
            "--prompt is empty; write a prompt, or leave --prompt out to describe each image",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How the model generates answers."""

    max_tokens: int = option(
        512, "The longest answer, in tokens; a longer answer is cut.", metavar="N", harmless=True
    )
    temperature: float = option(
        0.0,
        "0: the most likely words. Up to 2: more variety.",
        metavar="T",
        shown_default="0",
        harmless=True,
    )
    seed: int | None = option(
        None, "The random seed, for a --temperature above 0.", metavar="N", harmless=True
    )
    num_ctx: int | None = option(
        None,
        "The context length in tokens, for Ollama and llama-cpp. Longer contexts need more memory.",
        metavar="N",
        harmless=True,
    )
    schema: str | None = option(
        None,
        "Get JSON answers that match this JSON Schema: a file, or the schema as text.",
        section="Options to know first",
        metavar="FILE|JSON",
        harmless=is_schema_itself,
    )
    logprobs: int | None = option(
        None,
        "Record the probability of each token, and this many alternatives for each (0 to 20).",
        metavar="N",
        harmless=True,
    )
    accept: str = option(
        "",
        "Accept answers with these flaws: length (cut by --max-tokens), loop (repeats itself), or "
        "length,loop.",
        section="When something fails",
        metavar="FLAWS",
        parse=parse_accept,
        words=FLAWS,
        shown_default="none",
        harmless=True,
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
    """How the preparer decodes, shrinks and encodes pictures."""

    max_size: int | None = option(
        None,
        "Shrink each picture until its longest side has this many pixels. auto: the best size for the model; "
        "0: never shrink. With --max-pixels or --image-tokens there is no default.",
        metavar="PIXELS|auto",
        parse=parse_side,
        shown_default=str(USUAL_SIDE),
        harmless=True,
    )
    max_pixels: int | None = option(
        None,
        "Shrink each picture to at most this many pixels, width times height.",
        metavar="N",
        parse=parse_pixels,
        harmless=True,
    )
    image_tokens: int | None = option(
        None,
        "Shrink each picture until the model needs at most this many tokens for it.",
        metavar="N",
        harmless=True,
    )
    max_pixels_in: int = option(
        200_000_000,
        "Do not open images with more pixels than this.",
        metavar="N",
        parse=parse_pixels,
        shown_default="200MP",
    )
    quality: int = option(
        85, "The JPEG quality of the pictures that are sent, 1 to 100.", metavar="N", harmless=True
    )

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
    """Whether the text can be sent as UTF-8.

    Bytes of another encoding on a command line become surrogates, which cannot.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
