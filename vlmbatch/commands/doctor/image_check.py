"""One real image through an endpoint that is well so far."""

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

from vlmbatch.commands.doctor.endpoint_checks import EndpointChecks
from vlmbatch.commands.doctor.finding import Finding, wrong
from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError, ImageError
from vlmbatch.imaging.capabilities import drawn_shapes
from vlmbatch.imaging.prepare import prepare
from vlmbatch.imaging.sizing import sizing_of


def read_image(path: str | None, config: RunConfig) -> bytes:
    """The file of that image, or a drawn one; blocks.

    Raises:
        ConfigError: it cannot be read.
    """
    if path is None:
        return drawn_shapes()
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; name an image file") from error
    if len(data) > config.input.max_bytes:
        raise ConfigError(f"{path} has {len(data)} bytes; name an image below {config.input.max_bytes}")
    return data


async def check_image(checks: EndpointChecks, image: bytes) -> list[Finding]:
    """Ask about this image as a run would: how fast that was, and what was answered.

    Raises:
        BackendError: it was not answered.
    """
    found = checks.found
    sizing = sizing_of(checks.config.image, found.model, found.architecture)
    try:
        picture = await asyncio.to_thread(partial(prepare, image, checks.config.image, sizing=sizing))
    except ImageError as error:
        return [wrong("one image", error)]
    began = checks.clock()
    answer = await checks.backend.complete(
        replace(checks.question, images=(picture,), deadline_s=checks.cold_s)
    )
    took_s = checks.clock() - began
    usage = answer.usage
    figures = {
        "seconds": round(took_s, 3),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }
    told = f"answered in {took_s:.1f} s, sent at {picture.width}x{picture.height}"
    if usage.output_tokens:
        told += (
            f": {usage.input_tokens} tokens in, {usage.output_tokens} out, "
            f"{usage.output_tokens / took_s:.1f} tokens a second"
        )
    if answer.load_s:
        told += f"; the model was loaded again for it in {answer.load_s:.1f} s"
        figures["load_s"] = answer.load_s
    return [
        Finding(check="one image", mark="ok", told=told, figures=figures),
        *(Finding(check="note", mark="warning", told=text) for text in (*picture.warnings, *answer.warnings)),
        Finding(check="answer", mark="ok", told=answer.text),
    ]
