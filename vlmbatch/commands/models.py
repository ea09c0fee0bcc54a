"""Lists the models of the endpoints that the options name, or of those at the default addresses."""

import itertools
from dataclasses import dataclass, fields
from functools import partial
from urllib.parse import urlsplit

from vlmbatch.backends.registry import none_usable, servers
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.circuit_breaker import PREFLIGHT_S, until_available
from vlmbatch.endpoints.discovery import EndpointUrls, spec_at
from vlmbatch.errors import BackendError, ConfigError, TransientError, UnavailableError
from vlmbatch.protocols import Backend, Catalogue
from vlmbatch.records import ModelFacts

Address = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The models found. `places` are the endpoints that answered, `missing` the errors of named endpoints."""

    models: tuple[ModelFacts, ...]
    places: tuple[str, ...]
    missing: tuple[BackendError, ...] = ()


def each_endpoint(config: RunConfig) -> list[RunConfig]:
    """Return one config for each --base-url, or the config itself if it has none; blocks.

    Raises:
        ConfigError: a file of URLs cannot be used.
    """
    urls = EndpointUrls(config.endpoint.base_url).read()
    return [spec_at(config, url).config for url in urls] or [config]


async def take_inventory(config: RunConfig) -> Inventory:
    """Query every endpoint for its models, once, or repeatedly for the time of --give-up-after.

    Raises:
        ConfigError: the options do not fit together, or name a backend without a list of models.
    """
    models: list[ModelFacts] = []
    places: list[str] = []
    missing: list[BackendError] = []
    for one in each_endpoint(config):
        found: list[list[ModelFacts]] = []
        try:
            await until_available(
                partial(_query_all, one, found, places, missing),
                patience_s=config.run.patience_s(0.0),
                least_try_s=PREFLIGHT_S,
            )
        except BackendError as error:
            missing.append(error)
        models += itertools.chain.from_iterable(found)
    return Inventory(models=tuple(models), places=tuple(places), missing=tuple(missing))


async def _query_all(
    config: RunConfig, found: list[list[ModelFacts]], places: list[str], missing: list[BackendError]
) -> None:
    """Query the named endpoints or those at the default addresses; each address counts as one engine only.

    Raises:
        BackendError: no endpoint answers.
    """
    refused: list[BackendError] = []
    down: list[BackendError] = []
    named: list[tuple[Address, BackendError]] = []
    answered: set[Address] = set()
    for candidate in servers(config):
        backend = candidate.make()
        address = _address(backend.place)
        if address in answered:
            continue
        if not isinstance(backend, Catalogue):
            raise ConfigError(
                f"--backend {config.endpoint.backend} has no list of models; name one with --model"
            )
        try:
            async with backend:
                known = await candidate.asked(backend, backend.models)
                found.append([_masked(facts, backend) for facts in known])
        except BackendError as error:
            error.args = (backend.masked(str(error)),)
            (down if isinstance(error, (UnavailableError, TransientError)) else refused).append(error)
            named += [(address, error)] if candidate.sure else []
        else:
            answered.add(address)
            places.append(backend.place)
    if not answered:
        raise (*refused, *down)[0] if len(refused + down) == 1 else none_usable(refused, down)
    missing += [error for address, error in named if address not in answered]


def _masked(facts: ModelFacts, backend: Backend) -> ModelFacts:
    """The facts without secrets: a server may list a model that is named like the key."""
    values = {field.name: getattr(facts, field.name) for field in fields(facts)}
    texts = {name: backend.masked(value) for name, value in values.items() if isinstance(value, str)}
    return ModelFacts(**{**values, **texts})


def _address(place: str) -> Address:
    """Host and port, so that an endpoint with two API formats counts once."""
    parts = urlsplit(place)
    return parts.hostname or place, parts.port or {"https": 443}.get(parts.scheme, 80)
