"""The check with one real image, after all other checks of an endpoint."""

import asyncio
from dataclasses import dataclass, replace
from functools import partial

from vlmbatch.commands.doctor.endpoint_checks import EndpointChecks
from vlmbatch.commands.doctor.finding import Finding, wrong
from vlmbatch.config import RunConfig
from vlmbatch.errors import BadAnswerError, ConfigError, ImageError
from vlmbatch.images import ImageRef, PreparedImage
from vlmbatch.imaging.capabilities import drawn_shapes
from vlmbatch.imaging.fitting import Misfit, fitting_pixels, pixels_of
from vlmbatch.imaging.prepare import prepare
from vlmbatch.imaging.sizing import sizing_of
from vlmbatch.pipeline.context_fit import larger_context
from vlmbatch.pipeline.retry import BAD_ANSWERS
from vlmbatch.records import Completion
from vlmbatch.sources.files import read_file


def read_image(path: str | None, config: RunConfig) -> bytes:
    """Read the image file, or draw an image if no path is given; blocks.

    Raises:
        ConfigError: the file cannot be read or is too large.
    """
    if path is None:
        return drawn_shapes()
    try:
        return read_file(ImageRef(id=path, uri=path), max_bytes=config.input.max_bytes).data
    except ImageError as error:
        raise ConfigError(f"{path} cannot be read: {error}; name another image") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A picture that was answered, the answer, and its time in seconds.

    `larger` is the first picture that did not fit, with the `reason`, if a smaller one was sent.
    """

    picture: PreparedImage
    answer: Completion
    took_s: float
    larger: PreparedImage | None = None
    reason: str = ""


async def check_image(checks: EndpointChecks, image: bytes) -> list[Finding]:
    """Process this image as a run would; the findings have the time, the tokens and the answer.

    Raises:
        BackendError: the endpoint gave no usable answer.
    """
    try:
        sent = await _send(checks, image)
    except ImageError as error:
        return [wrong("one image", error)]
    picture, answer, usage = sent.picture, sent.answer, sent.answer.usage
    figures = {
        "seconds": round(sent.took_s, 3),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }
    told = f"answered in {sent.took_s:.1f} s, sent at {picture.width}x{picture.height}"
    if usage.output_tokens:
        told += (
            f": {usage.input_tokens} tokens in, {usage.output_tokens} out, "
            f"{usage.output_tokens / sent.took_s:.1f} tokens a second"
        )
    if answer.load_s:
        told += f"; the model was reloaded for it in {answer.load_s:.1f} s"
        figures["load_s"] = answer.load_s
    return [
        *_does_not_fit(checks, sent),
        Finding(check="one image", mark="ok", told=told, figures=figures),
        *(Finding(check="note", mark="warning", told=text) for text in (*picture.warnings, *answer.warnings)),
        Finding(check="answer", mark="ok", told=answer.text),
    ]


async def _send(checks: EndpointChecks, image: bytes) -> Sent:
    """Send this image, and smaller if it does not fit, as often as a run would."""
    found, options = checks.found, checks.config.image
    sizing = sizing_of(options, found.model, found.architecture)
    larger, reason = None, ""
    misfit: Misfit | None = None
    for tries_left in reversed(range(BAD_ANSWERS)):
        picture = await asyncio.to_thread(partial(prepare, image, options, sizing=sizing))
        question = replace(checks.question, images=(picture,), deadline_s=checks.cold_s)
        began = checks.clock()
        try:
            answer = await checks.backend.complete(question)
        except BadAnswerError as error:
            if error.change != "shrink" or not tries_left:
                raise
            larger, reason = larger or picture, reason or str(error)
            before, misfit = misfit, Misfit(pixels=pixels_of((picture,)), overflow=error.overflow)
            sizing = sizing.within(fitting_pixels(misfit, question, before))
            continue
        return Sent(
            picture=picture, answer=answer, took_s=checks.clock() - began, larger=larger, reason=reason
        )
    raise AssertionError("the last try returns or raises")


def _does_not_fit(checks: EndpointChecks, sent: Sent) -> list[Finding]:
    """The finding that a picture of the usual size does not fit, if so."""
    if sent.larger is None:
        return []
    told = (
        f"a picture of {sent.larger.width}x{sent.larger.height} does not fit; a run sends smaller pictures, "
        f"here {sent.picture.width}x{sent.picture.height}: {sent.reason}"
    )
    advice = larger_context(checks.found.backend)
    return [Finding(check="one image", mark="warning", told=told, advice=advice)]
