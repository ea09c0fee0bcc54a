"""Which endpoints a run asks: for each the options that it has, as if it were the only one."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vlmbatch.backends.litellm.deployments import Deployment, deployments_in
from vlmbatch.config import RunConfig
from vlmbatch.config.endpoint import EndpointOptions, FallbackSpec
from vlmbatch.config.request import WireOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One endpoint to ask; rank 0 shares the images, 1 and more are fallbacks, in this order.

    `deployment` is where, of those that a config of LiteLLM names.
    """

    rank: int
    config: RunConfig
    deployment: Deployment | None = None


def plans(config: RunConfig, urls: Sequence[str], environ: Mapping[str, str] = os.environ) -> list[Plan]:
    """All endpoints of a run with these options, whose --base-url names these URLs; blocks.

    Raises:
        ConfigError: --litellm-config cannot be used.
    """
    first = [at(config, url) for url in urls] or _deployed(0, config, environ)
    rest = [
        plan
        for rank, options in enumerate(fallbacks(config), 1)
        for plan in _deployed(rank, options, environ)
    ]
    return [*first, *rest]


def _deployed(rank: int, config: RunConfig, environ: Mapping[str, str]) -> list[Plan]:
    """One, or with --litellm-config each deployment of the model."""
    options = config.endpoint
    if options.backend != "litellm" or options.litellm_config is None:
        return [Plan(rank=rank, config=config)]
    found = deployments_in(options.litellm_config, options.model, environ)
    return [Plan(rank=rank, config=config, deployment=deployment) for deployment in found]


def fallbacks(config: RunConfig) -> list[RunConfig]:
    """The options of each fallback."""
    return [_instead(config, FallbackSpec.of(text)) for text in config.endpoint.fallback]


def at(config: RunConfig, url: str) -> Plan:
    """The endpoint of the first rank at this URL."""
    return Plan(rank=0, config=_with(config, replace(config.endpoint, base_url=(url,), fallback=())))


def _instead(config: RunConfig, spec: FallbackSpec) -> RunConfig:
    """The options of a fallback: key, headers and the like of the first are nothing for it."""
    first = config.endpoint
    options = EndpointOptions(
        backend=spec.backend,
        model=spec.model,
        base_url=() if spec.url is None else (spec.url,),
        keep_alive=first.keep_alive,
        canary=first.canary,
        unload=first.unload,
        litellm_config=first.litellm_config if spec.backend == "litellm" else None,
    )
    return replace(_with(config, options), wire=WireOptions())


def _with(config: RunConfig, endpoint: EndpointOptions) -> RunConfig:
    return replace(config, endpoint=endpoint)
