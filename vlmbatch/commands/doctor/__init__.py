"""Checks whether a run would work: this machine, then each endpoint with one image.

It prints nothing; check_up() yields one finding at a time.
"""

import asyncio
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from vlmbatch.commands.doctor.endpoint_checks import EndpointChecks
from vlmbatch.commands.doctor.finding import Finding, Mark, wrong
from vlmbatch.commands.doctor.image_check import check_image
from vlmbatch.commands.doctor.machine import check_machine
from vlmbatch.commands.doctor.picked_image import pick_image
from vlmbatch.commands.models import each_endpoint
from vlmbatch.config import Option, RunConfig, options
from vlmbatch.config.endpoint import FallbackSpec
from vlmbatch.config.spec import AUTO, redact
from vlmbatch.endpoints.discovery import fallbacks
from vlmbatch.errors import BackendError
from vlmbatch.events import ignore
from vlmbatch.prompts import prompt_text
from vlmbatch.protocols import Observer
from vlmbatch.records import Endpoint

__all__ = ["Finding", "Mark", "check_up"]

ESSENTIAL = ("reachable", "model", "loaded", "really sees")
"""The checks that the later checks depend on."""
TITLES = ("reachable", "model", "takes pictures", "loaded", "really sees", "context", "at once", "one image")
SHAPING = ("prompt", "generation", "image")
"""Groups of options that shape an answer; the suggested run repeats those that were checked."""


async def check_up(config: RunConfig, path: str | None, notify: Observer = ignore) -> AsyncIterator[Finding]:
    """Check this machine, then every endpoint with one image; end with the run to type.

    The image is the one at `path`, the first good one of a folder, or a drawn one.
    `notify` receives the reasons while a check waits for an endpoint.

    Raises:
        ConfigError: the prompt or the image cannot be read.
    """
    prompt = await asyncio.to_thread(prompt_text, config.prompt)
    image = await asyncio.to_thread(pick_image, path, config)
    for finding in await asyncio.to_thread(check_machine):
        yield finding
    for finding in image.findings:
        yield finding
    passed: list[tuple[RunConfig, Endpoint]] = []
    others = fallbacks(config)
    for one in each_endpoint(config) + others:
        wrongs = 0
        async with AsyncExitStack() as stack:
            rank = others.index(one) + 1 if one in others else 0
            checks = EndpointChecks(config=one, prompt=prompt, stack=stack, notify=notify, rank=rank)
            async for finding in _findings(checks, image.data):
                wrongs += finding.mark == "wrong"
                yield replace(finding, endpoint=one.endpoint.url and redact(one.endpoint.url))
            if not wrongs and not rank:
                passed.append((one, replace(checks.found, model=checks.shown(checks.found.model))))
    yield _next(config, image.folder, passed if image.usable else [])


async def _findings(checks: EndpointChecks, image: bytes) -> AsyncIterator[Finding]:
    """Yield the findings of each check; after a failed essential check the later ones are skipped."""
    steps: tuple[Callable[[], Awaitable[list[Finding]]], ...] = (
        checks.reachable,
        checks.model,
        checks.sees,
        checks.loaded,
        checks.really_sees,
        checks.context,
        checks.parallel,
        partial(check_image, checks, image),
    )
    blocked: str | None = None
    for title, step in zip(TITLES, steps, strict=True):
        if blocked is not None:
            yield Finding(
                check=title, mark="skipped", told=f"not checked, since this check failed: {blocked}"
            )
            continue
        try:
            found = await step()
        except BackendError as error:
            found = [wrong(title, error)]
        for finding in found:
            yield checks.masked(finding)
        if title in ESSENTIAL and any(finding.mark == "wrong" for finding in found):
            blocked = title


def _next(config: RunConfig, folder: str | None, passed: list[tuple[RunConfig, Endpoint]]) -> Finding:
    """The run to type, with all endpoints that passed their checks."""
    if not passed:
        return Finding(
            check="next", mark="skipped", told="follow the advice above, and run the same command again"
        )
    return Finding(
        check="next", mark="ok", told=" ".join(map(shlex.quote, _command(config, folder or "FOLDER", passed)))
    )


def _command(config: RunConfig, folder: str, passed: list[tuple[RunConfig, Endpoint]]) -> list[str]:
    """The words of the run to type, without passwords and keys, which belong in the environment."""
    words = ["vlmbatch", "run", folder]
    found = [endpoint for _, endpoint in passed]
    if config.endpoint.model or found[0].backend != "llama-cpp":  # else the demonstration model, unnamed
        backend = found[0].backend if len({e.backend for e in found}) == 1 else "auto"
        words += ["--backend", backend, "--model", config.endpoint.model or found[0].model]
    for one, _ in passed:
        words += ["--base-url", redact(one.endpoint.url)] if one.endpoint.url else []
    words += [word for text in config.endpoint.fallback for word in ("--fallback", _fallback(text))]
    for option in options():
        value = getattr(getattr(config, option.group), option.name)
        if option.group in SHAPING and value not in (None, option.default):
            words += _typed(option, value)
    return [*words, "--output", "answers.jsonl"]


def _fallback(text: str) -> str:
    """The fallback without a password, and with the name of the variable that has its key."""
    variable = FallbackSpec.of(text).key_variable
    return redact(text) + (f"#{variable}" if variable else "")


def _typed(option: Option, value: object) -> list[str]:
    """The option with this value, as typed on a command line."""
    if isinstance(value, bool):
        return [option.flag if value else f"--no-{option.key}"]
    each = value if isinstance(value, tuple) else (value,)
    return [word for one in each for word in (option.flag, "auto" if one == AUTO else str(one))]
