"""Which endpoints a run asks: for each the options that it has, as if it were the only one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlmbatch.config import RunConfig
from vlmbatch.endpoint_options import EndpointOptions, FallbackSpec
from vlmbatch.wire_options import WireOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One endpoint to ask; rank 0 shares the images, 1 and more are fallbacks, in this order."""

    rank: int
    config: RunConfig


def plans(config: RunConfig, urls: Sequence[str]) -> list[Plan]:
    """All endpoints of a run with these options, whose --base-url names these URLs."""
    first = [at(config, url) for url in urls] or [Plan(rank=0, config=config)]
    rest = [
        Plan(rank=rank, config=_instead(config, FallbackSpec.of(text)))
        for rank, text in enumerate(config.endpoint.fallback, 1)
    ]
    return [*first, *rest]


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
    )
    return replace(_with(config, options), wire=WireOptions())


def _with(config: RunConfig, endpoint: EndpointOptions) -> RunConfig:
    return replace(config, endpoint=endpoint)
