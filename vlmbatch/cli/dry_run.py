"""`vlmbatch run --dry-run`: shows the images, the endpoint and the estimate of a run on standard error."""

import asyncio
from typing import TYPE_CHECKING

from vlmbatch.cli.console import Console
from vlmbatch.commands.dry_run import DryRunReport, dry_run
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.cost import Prices
from vlmbatch.events import tell
from vlmbatch.observers import JsonLog, Lines, duration, not_read, skipped_entries
from vlmbatch.observers.format import counted
from vlmbatch.pipeline.empty_paths import empty_notice
from vlmbatch.protocols import Observer

if TYPE_CHECKING:
    from vlmbatch.commands.estimate import ProbeResult

SHOWN_SIZES = 3
NOTHING_SENT = "nothing was sent (--dry-run)"


def show_dry_run(config: RunConfig, console: Console) -> bool:
    """Count the images and print the result; returns False if a probe ended before its first image.

    Standard output stays empty, since there are no records.
    """
    observer: Observer = JsonLog(console.stream) if config.display.log_json else Lines(console.stream)
    prices = _prices(config)
    found = dry_run(config, observer)
    for line in report_lines(config, found):
        tell(observer, line)
    if config.display.probe is None or not found.sample:
        tell(observer, NOTHING_SENT)
        return True
    return _probe(config, found, prices, observer)


def report_lines(config: RunConfig, found: DryRunReport) -> list[str]:
    """The lines to print."""
    formats = ", ".join(f"{n} {name}" for name, n in found.formats.most_common())
    sizes = ", ".join(f"{n} at {w}x{h}" for (w, h), n in found.sent_sizes.most_common(SHOWN_SIZES))
    more = len(found.sent_sizes) - SHOWN_SIZES
    others = f" and {counted(more, 'other size')}" if more > 0 else ""
    output = "standard output" if config.output.output == "-" else config.output.output
    lines = [
        f"images: {found.images}" + (f" ({formats})" if formats else ""),
        f"on disk: {found.bytes / 1e6:.1f} MB, {found.megapixels:.1f} megapixels",
        f"to send: {found.sent_megapixels:.1f} megapixels" + (f", {sizes}{others}" if sizes else ""),
        f"to: {found.backend} ({found.place}), model {config.endpoint.model or 'chosen at the start'}",
        f"prompt: {found.prompt}",
        f"records to: {output}",
    ]
    if found.image_tokens is not None:
        lines.insert(3, f"image tokens: about {found.image_tokens:,} in total")
    if found.duplicates:
        lines.insert(1, f"duplicates: {found.duplicates}, which are not sent (--no-dedupe sends them)")
    if found.ignored or found.unreadable:
        folders = counted(found.unreadable, "unreadable folder")
        lines.append(f"skipped: {counted(found.ignored, 'other file')}, {folders}")
    if found.ignored_kinds:
        lines.append(f"{not_read(found.ignored_kinds)}, but may hold images")
    if found.skipped_entries:
        lines.append(skipped_entries(found.skipped_entries))
    if found.refusal is not None:
        lines.append(f"the run would end with exit code 2: {found.refusal}")
    elif (notice := empty_notice(config, found.empty_paths)) is not None:
        lines.append(notice)
    if found.frames:
        lines.append(f"images with several pages or frames: {found.frames} (only the first is read)")
    if found.failing:
        lines.append(f"images that would fail: {found.failing}")
        lines += [f"  {problem}" for problem in found.problems]
    return lines


def _prices(config: RunConfig) -> Prices | None:
    """Read --prices before anything else, so that a mistake in the file ends the command at once."""
    if config.display.prices is None:
        return None
    prices = Prices(config.display.prices)
    if config.endpoint.model is not None:
        prices.of(config.endpoint.model)
    return prices


def _probe(config: RunConfig, found: DryRunReport, prices: Prices | None, observer: Observer) -> bool:
    """Process the sample and print the estimate; returns False if no image was sent in time."""
    from vlmbatch.commands.estimate import probe  # imports all that a run needs

    probed = asyncio.run(probe(config, found.sample, found.prompt, observer))
    if probed is None:
        tell(observer, "no image was sent before the time limit")
        return False
    images = found.images - found.failing - found.duplicates
    for line in forecast(images, probed, config.run.rpm):
        tell(observer, line)
    usage = probed.tokens(images)
    if prices is not None and usage is not None:
        tell(observer, f"cost: about ${prices.of(probed.model).of(usage):,.2f}")
    return True


def forecast(images: int, probed: "ProbeResult", rpm: float | None) -> list[str]:
    """The lines about the probe and the estimate for this many images; `rpm` limits the rate."""
    tried = probed.answered + len(probed.failures)
    lines = [
        f"sent {tried} images to {probed.model}, {probed.concurrency} at once: "
        f"{probed.answered} answered in {duration(probed.seconds)}; nothing was recorded (--dry-run)",
        *(f"  {failure}" for failure in probed.failures),
    ]
    if probed.repeated:
        lines.append(f"retried images: {probed.repeated}; the tokens below count one request for each")
    seconds, usage = probed.whole_s(images), probed.tokens(images)
    if seconds is None or usage is None:
        return [*lines, "no image was answered, so there is no estimate"]
    if rpm is not None:
        seconds = max(seconds, 60 * images / rpm)
    each = f"{usage.input_tokens / images:.0f} tokens in and {usage.output_tokens / images:.0f} out each"
    return [
        *lines,
        f"all {images:,} images: about {duration(seconds)} at this rate, {usage.input_tokens:,} tokens in, "
        f"{usage.output_tokens:,} out ({each})",
    ]
