"""Looks whether a run would go well: this machine, then each endpoint, and one image through it.

It prints nothing; whoever iterates gets a finding at a time.
"""

import asyncio
import shlex
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

from vlmbatch.commands.doctor.endpoint_checks import EndpointChecks
from vlmbatch.commands.doctor.finding import Finding, Mark, wrong
from vlmbatch.commands.doctor.image_check import check_image, read_image
from vlmbatch.commands.doctor.machine import check_machine
from vlmbatch.commands.models import each_endpoint
from vlmbatch.config import Option, RunConfig, options
from vlmbatch.config.spec import AUTO, redact
from vlmbatch.endpoints.discovery import fallbacks
from vlmbatch.errors import BackendError
from vlmbatch.prompts import prompt_text
from vlmbatch.records import Endpoint

__all__ = ["Finding", "Mark", "check_up"]

ESSENTIAL = ("reachable", "model", "loaded", "really sees")
"""Where one of these is wrong, nothing can be said of what comes after it."""
TITLES = ("reachable", "model", "takes pictures", "loaded", "really sees", "context", "at once", "one image")
SHAPING = ("prompt", "generation", "image")
"""Groups of options that a run needs just as they were tried."""


async def check_up(config: RunConfig, image: str | None) -> AsyncIterator[Finding]:
    """Check this machine, then every endpoint with this image or a drawn one; last what to type.

    Raises:
        ConfigError: the prompt or the image cannot be read.
    """
    prompt = await asyncio.to_thread(prompt_text, config.prompt)
    data = await asyncio.to_thread(read_image, image, config)
    for finding in await asyncio.to_thread(check_machine):
        yield finding
    well: list[tuple[RunConfig, Endpoint]] = []
    others = fallbacks(config)
    for one in each_endpoint(config) + others:
        wrongs = 0
        async with AsyncExitStack() as stack:
            checks = EndpointChecks(config=one, prompt=prompt, stack=stack)
            async for finding in _findings(checks, data):
                wrongs += finding.mark == "wrong"
                yield replace(finding, endpoint=one.endpoint.url and redact(one.endpoint.url))
            if not wrongs and one not in others:
                well.append((one, checks.found))
    yield _next(config, well)


async def _findings(checks: EndpointChecks, image: bytes) -> AsyncIterator[Finding]:
    """What each step finds; after one that is essential and wrong the others are skipped."""
    steps = (
        checks.reachable,
        checks.model,
        checks.sees,
        checks.loaded,
        checks.really_sees,
        checks.context,
        checks.parallel,
    )
    blocked: str | None = None
    for title, step in zip(TITLES, (*steps, lambda: check_image(checks, image)), strict=True):
        if blocked is not None:
            yield Finding(check=title, mark="skipped", told=f"not before this is well: {blocked}")
            continue
        try:
            found = await step()
        except BackendError as error:
            found = [wrong(title, error)]
        for finding in found:
            yield finding
        if title in ESSENTIAL and any(finding.mark == "wrong" for finding in found):
            blocked = title


def _next(config: RunConfig, well: list[tuple[RunConfig, Endpoint]]) -> Finding:
    """The run to type, on all the endpoints that are well."""
    if not well:
        return Finding(
            check="next", mark="skipped", told="do what is said above, and run the same command again"
        )
    return Finding(check="next", mark="ok", told=" ".join(map(shlex.quote, _command(config, well))))


def _command(config: RunConfig, well: list[tuple[RunConfig, Endpoint]]) -> list[str]:
    """The words of that command; passwords and keys are left to the environment."""
    words = ["vlmbatch", "run", "FOLDER"]
    found = [endpoint for _, endpoint in well]
    if config.endpoint.model or found[0].backend != "llama-cpp":  # else the demonstration model, unnamed
        backend = found[0].backend if len({e.backend for e in found}) == 1 else "auto"
        words += ["--backend", backend, "--model", config.endpoint.model or found[0].model]
    for one, _ in well:
        words += ["--base-url", redact(one.endpoint.url)] if one.endpoint.url else []
    words += [word for text in config.endpoint.fallback for word in ("--fallback", redact(text))]
    for option in options():
        value = getattr(getattr(config, option.group), option.name)
        if option.group in SHAPING and value not in (None, option.default):
            words += _typed(option, value)
    return [*words, "--output", "answers.jsonl"]


def _typed(option: Option, value: object) -> list[str]:
    """The option with this value, as it is typed."""
    if isinstance(value, bool):
        return [option.flag if value else f"--no-{option.key}"]
    each = value if isinstance(value, tuple) else (value,)
    return [word for one in each for word in (option.flag, "auto" if one == AUTO else str(one))]
