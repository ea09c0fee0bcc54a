"""Who is asked: the endpoint's options, declared as in option_groups.py."""

from dataclasses import dataclass
from typing import Literal, get_args

from vlmbatch.options import check_url, option, require

BackendName = Literal["auto", "ollama", "vllm", "openai", "llama-cpp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """Who is asked."""

    model: str | None = option(
        None,
        "The model's name at the endpoint, or for llama-cpp a .gguf file or hf.co/OWNER/REPO.",
        short="-m",
        metavar="NAME",
        shown_default="the endpoint's only vision model",
    )
    backend: BackendName = option(
        "auto", "The engine that looks at the images.", short="-b", choices=get_args(BackendName)
    )
    base_url: tuple[str, ...] = option(
        (),
        "Where the endpoint listens; without it OLLAMA_HOST or OPENAI_BASE_URL, then the default port.",
        metavar="URL",
        secret=True,  # it may hold a password
    )
    api_key: str | None = option(
        None,
        "The endpoint's key; VLMBATCH_API_KEY or OPENAI_API_KEY keep it off the command line.",
        metavar="KEY",
        secret=True,
    )
    mmproj: str | None = option(
        None, "The vision part (projector) that belongs to a .gguf model.", metavar="FILE"
    )
    keep_alive: str | None = option(
        "30m", "How long Ollama keeps the model loaded after an answer.", metavar="TIME"
    )
    canary: bool = option(
        True, "Prove with a picture of one colour that pictures reach the model, before the first image."
    )

    def __post_init__(self) -> None:
        require(
            self.backend in get_args(BackendName),
            f"--backend {self.backend} is not known; choose one of {', '.join(get_args(BackendName))}",
        )
        for url in self.base_url:
            check_url(url, "--base-url")

    @property
    def url(self) -> str | None:
        """The one address that is asked, where one is named."""
        return self.base_url[0] if self.base_url else None
