"""The check with one real image, after all other checks of an endpoint."""

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
    """Read the image file, or draw an image if no path is given; blocks.

    Raises:
        ConfigError: the file cannot be read or is too large.
    """
    if path is None:
        return drawn_shapes()
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; name an image file") from error
    if len(data) > config.input.max_bytes:
        limit = config.input.max_bytes
        raise ConfigError(f"{path} has {len(data)} bytes; name an image of at most {limit} bytes")
    return data


async def check_image(checks: EndpointChecks, image: bytes) -> list[Finding]:
    """Process this image as a run would; the findings have the time, the tokens and the answer.

    Raises:
        BackendError: the endpoint gave no usable answer.
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
        told += f"; the model was reloaded for it in {answer.load_s:.1f} s"
        figures["load_s"] = answer.load_s
    return [
        Finding(check="one image", mark="ok", told=told, figures=figures),
        *(Finding(check="note", mark="warning", told=text) for text in (*picture.warnings, *answer.warnings)),
        Finding(check="answer", mark="ok", told=answer.text),
    ]
