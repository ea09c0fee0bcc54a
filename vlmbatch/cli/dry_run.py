"""`vlmbatch run --dry-run`: tells on standard error what a run would send, and where, and what that takes."""

import asyncio
from typing import TYPE_CHECKING

from vlmbatch.cli.console import Console
from vlmbatch.commands.dry_run import DryRunReport, dry_run
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.cost import Prices
from vlmbatch.events import tell
from vlmbatch.observers import JsonLog, Lines, duration
from vlmbatch.protocols import Observer

if TYPE_CHECKING:
    from vlmbatch.commands.estimate import ProbeResult

SHOWN_SIZES = 3
NOTHING_SENT = "nothing was sent (--dry-run)"


def show_dry_run(config: RunConfig, console: Console) -> bool:
    """Walk, count and tell; whether it came to its end.

    Standard output stays empty, as in every run that writes no record.
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
    """The lines to show."""
    formats = ", ".join(f"{n} {name}" for name, n in found.formats.most_common())
    sizes = ", ".join(f"{n} at {w}x{h}" for (w, h), n in found.sent_sizes.most_common(SHOWN_SIZES))
    more = len(found.sent_sizes) - SHOWN_SIZES
    others = f" and {more} other sizes" if more > 0 else ""
    output = "standard output" if config.output.output == "-" else config.output.output
    lines = [
        f"images: {found.images}" + (f" ({formats})" if formats else ""),
        f"on disk: {found.bytes / 1e6:.1f} MB, {found.megapixels:.1f} megapixels",
        f"to send: {found.sent_megapixels:.1f} megapixels" + (f", {sizes}{others}" if sizes else ""),
        f"to: {found.backend} ({found.place}), model {config.endpoint.model or 'found at the start'}",
        f"prompt: {found.prompt}",
        f"records to: {output}",
    ]
    if found.image_tokens is not None:
        lines.insert(3, f"image tokens: about {found.image_tokens:,} in all")
    if found.duplicates:
        lines.insert(1, f"duplicates: {found.duplicates}, which are not asked about (--no-dedupe asks)")
    if found.ignored or found.unreadable:
        lines.append(f"left out: {found.ignored} that are no images, {found.unreadable} unreadable folders")
    if found.failing:
        lines.append(f"would fail: {found.failing}")
        lines += [f"  {problem}" for problem in found.problems]
    return lines


def _prices(config: RunConfig) -> Prices | None:
    """The prices of --prices; a mistake in them is told before anything else is done."""
    if config.display.prices is None:
        return None
    prices = Prices(config.display.prices)
    if config.endpoint.model is not None:
        prices.of(config.endpoint.model)
    return prices


def _probe(config: RunConfig, found: DryRunReport, prices: Prices | None, observer: Observer) -> bool:
    """Ask about the sample, and say what all of the images will take; False where time was up before that."""
    from vlmbatch.commands.estimate import probe  # with all that a run needs

    asked = asyncio.run(probe(config, found.sample, found.prompt, observer))
    if asked is None:
        tell(observer, "no image was asked about before the time was up")
        return False
    images = found.images - found.failing - found.duplicates
    for line in forecast(images, asked, config.run.rpm):
        tell(observer, line)
    usage = asked.tokens(images)
    if prices is not None and usage is not None:
        tell(observer, f"cost: about ${prices.of(asked.model).of(usage):,.2f}")
    return True


def forecast(images: int, asked: "ProbeResult", rpm: float | None) -> list[str]:
    """What the images that were asked about tell of so many; `rpm` bounds the pace."""
    tried = asked.answered + len(asked.failures)
    lines = [
        f"asked {asked.model} about {tried} images, {asked.concurrency} at once: "
        f"{asked.answered} answered in {duration(asked.seconds)}; nothing was recorded (--dry-run)",
        *(f"  {failure}" for failure in asked.failures),
    ]
    if asked.repeated:
        lines.append(f"{asked.repeated} of them more than once: the tokens below are those of one time")
    seconds, usage = asked.whole_s(images), asked.tokens(images)
    if seconds is None or usage is None:
        return [*lines, "no image was answered, which says nothing about the others"]
    if rpm is not None:
        seconds = max(seconds, 60 * images / rpm)
    each = f"{usage.input_tokens / images:.0f} tokens in and {usage.output_tokens / images:.0f} out each"
    return [
        *lines,
        f"all {images:,} images: about {duration(seconds)} at that pace, {usage.input_tokens:,} tokens in, "
        f"{usage.output_tokens:,} out ({each})",
    ]
