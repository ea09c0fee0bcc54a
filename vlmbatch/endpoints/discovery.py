"""Discovery: the endpoints that the options name, some of them in files that change during a run."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlmbatch.backends.keys import key_of_fallback
from vlmbatch.backends.litellm.deployments import Deployment, deployments_in
from vlmbatch.config import RunConfig
from vlmbatch.config.endpoint import EndpointOptions, FallbackSpec, is_file_of_urls
from vlmbatch.config.request import RequestOptions
from vlmbatch.config.spec import check_url
from vlmbatch.config.text_file import read_text
from vlmbatch.errors import ConfigError


class EndpointUrls:
    """The URLs of --base-url, typed or in files. All methods block."""

    def __init__(self, named: Sequence[str]) -> None:
        self._named = tuple(named)
        self._files = tuple(Path(name) for name in named if is_file_of_urls(name))
        self._seen = self._stamps()

    @property
    def may_change(self) -> bool:
        """Whether a URL comes from a file."""
        return bool(self._files)

    def read(self) -> tuple[str, ...]:
        """All URLs, each once, in their order.

        Raises:
            ConfigError: a file cannot be read, has no URL, or has a line that is none.
        """
        self._seen = self._stamps()
        urls: list[str] = []
        for name in self._named:
            urls += _urls_in(Path(name)) if Path(name) in self._files else [name]
        return tuple(dict.fromkeys(urls))

    def has_changed(self) -> bool:
        """Whether a file has changed since it was read."""
        return self._stamps() != self._seen

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._files]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _urls_in(path: Path) -> list[str]:
    """The URLs in a file: one a line, # begins a comment."""
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(
            f"--base-url {path} cannot be read: {told}; write one URL per line into this file"
        ) from error
    urls = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            check_url(text, f"line {number} of {path} (--base-url):")
            urls.append(text)
    if not urls:
        raise ConfigError(
            f"--base-url {path} names no URL; write one URL per line, such as http://gpu1:8000/v1"
        )
    return urls


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """One endpoint to use; rank 0 shares the images, 1 and more are fallbacks, in this order.

    `config` has the options as if it were the only endpoint. `deployment` is its entry in a LiteLLM config.
    """

    rank: int
    config: RunConfig
    deployment: Deployment | None = None


def endpoint_specs(
    config: RunConfig, urls: Sequence[str], environ: Mapping[str, str] = os.environ
) -> list[EndpointSpec]:
    """All endpoints of these options, with these URLs of --base-url; blocks.

    Raises:
        ConfigError: --litellm-config cannot be used, or the key of a fallback is not set.
    """
    first = [spec_at(config, url) for url in urls] or _deployed(0, config, environ)
    rest = [
        spec
        for rank, options in enumerate(fallbacks(config, environ), 1)
        for spec in _deployed(rank, options, environ)
    ]
    return [*first, *rest]


def _deployed(rank: int, config: RunConfig, environ: Mapping[str, str]) -> list[EndpointSpec]:
    """One endpoint, or with --litellm-config each deployment of the model."""
    options = config.endpoint
    if options.backend != "litellm" or options.litellm_config is None:
        return [EndpointSpec(rank=rank, config=config)]
    found = deployments_in(options.litellm_config, options.model, environ)
    return [EndpointSpec(rank=rank, config=config, deployment=deployment) for deployment in found]


def fallbacks(config: RunConfig, environ: Mapping[str, str] = os.environ) -> list[RunConfig]:
    """The options of each fallback; raises ConfigError if the key of one is not set."""
    specs = [FallbackSpec.of(text) for text in config.endpoint.fallback]
    return [_fallback_config(config, spec, key_of_fallback(spec, environ)) for spec in specs]


def spec_at(config: RunConfig, url: str) -> EndpointSpec:
    """The endpoint of rank 0 at this URL."""
    return EndpointSpec(rank=0, config=_with(config, replace(config.endpoint, base_url=(url,), fallback=())))


def _fallback_config(config: RunConfig, spec: FallbackSpec, key: str | None) -> RunConfig:
    """The options of a fallback. It never gets the key, headers and certificates of the first endpoint."""
    first = config.endpoint
    options = EndpointOptions(
        backend=spec.backend,
        model=spec.model,
        base_url=() if spec.url is None else (spec.url,),
        api_key=key,
        keep_alive=first.keep_alive,
        canary=first.canary,
        unload=first.unload,
        litellm_config=first.litellm_config if spec.backend == "litellm" else None,
    )
    return replace(_with(config, options), request=RequestOptions())


def _with(config: RunConfig, endpoint: EndpointOptions) -> RunConfig:
    return replace(config, endpoint=endpoint)
