"""The options of a run: output, concurrency and limits, and display."""

from dataclasses import dataclass

from vlmbatch.config.spec import (
    LONGEST_S,
    flag,
    is_clock,
    option,
    parse_clock,
    parse_concurrency,
    parse_duration,
    parse_failures,
    parse_size,
    require,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Where records go, and which images are processed again."""

    output: str = option(
        "-",
        "Append the records to this file, and skip images that are done in it. -: standard output.",
        section="Options to know first",
        short="-o",
        metavar="FILE",
    )
    retry_failed: bool = option(False, "Ask again about images that failed for good in an earlier run.")
    overwrite: bool = option(False, "Replace the records in the file of --output.")
    append: bool = option(
        False, "Append to the file of --output even if its records come from other settings."
    )
    dedupe: bool = option(
        True,
        "Ask about each of several identical images. Otherwise they share a single answer.",
        harmless=True,
    )
    cache: str | None = option(
        None,
        "Store all answers in this folder, and use them again for the same images with the same settings.",
        metavar="DIR",
    )

    def __post_init__(self) -> None:
        require(
            not (self.overwrite and self.append), "--overwrite and --append are both set; keep one of them"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How many requests the endpoint gets, and the limits of a run."""

    concurrency: int | None = option(
        None,
        "How many requests are sent at once. auto: the number that is fastest with the endpoint.",
        short="-c",
        metavar="N|auto",
        parse=parse_concurrency,
        shown_default="auto",
        harmless=True,
    )
    rpm: float | None = option(
        None,
        "The most requests per minute.",
        metavar="N",
        shown_default="no limit",
        harmless=True,
    )
    timeout: float = option(
        300.0,
        "How long a single request may take, for example 90 or 5m.",
        section="When something fails",
        metavar="TIME",
        parse=parse_duration,
        shown_default="300 seconds",
        harmless=True,
    )
    retries: int = option(
        8,
        "How often a request is tried again after temporary failures.",
        section="When something fails",
        metavar="N",
        harmless=True,
    )
    max_failures: str = option(
        "0",
        "The exit code is 0 if at most this many images failed: a number, or a percentage such as 1%.",
        section="When something fails",
        metavar="N",
        parse=parse_failures,
    )
    give_up_after: float | None = option(
        None,
        "How long to wait for an endpoint (collect: for Redis) that does not answer. Then the command ends; "
        "serve and worker go on.",
        section="When something fails",
        metavar="TIME",
        parse=parse_duration,
        shown_default="5s at the start, 15m later; serve: 15s",
    )
    until: str | None = option(
        None,
        "Stop at this time of day; the same command continues later (exit code 6).",
        metavar="HH:MM",
        parse=parse_clock,
        harmless=True,
    )
    max_duration: float | None = option(
        None,
        "Stop after this duration, such as 15m or 2h; the same command continues later (exit code 6).",
        metavar="TIME",
        parse=parse_duration,
        harmless=True,
    )
    max_cost: float | None = option(
        None,
        "Stop after this many US dollars; the same command continues later (exit code 6).",
        metavar="DOLLARS",
    )
    drain: float = option(
        30.0,
        "How long a run that stops waits for its last answers.",
        metavar="TIME",
        parse=parse_duration,
        shown_default="30s",
        harmless=True,
    )
    decode_memory: int | None = option(
        None,
        "The most memory for decoding pictures, for example 1GiB.",
        metavar="SIZE",
        parse=parse_size,
        shown_default="a quarter of the memory, at most 2GiB",
    )

    def __post_init__(self) -> None:
        require(
            self.concurrency is None or 1 <= self.concurrency <= 4096,
            f"--concurrency must be between 1 and 4096, not {self.concurrency}",
        )
        require(self.rpm is None or self.rpm > 0, f"--rpm must be more than 0, not {self.rpm}")
        require(self.timeout > 0, f"--timeout must be more than 0 seconds, not {self.timeout:g}")
        require(self.retries >= 0, f"--retries must be 0 or more, not {self.retries}")
        require(
            self.give_up_after is None or self.give_up_after >= 0, "--give-up-after must be 0 seconds or more"
        )
        require(
            self.max_duration is None or self.max_duration > 0, "--max-duration must be more than 0 seconds"
        )
        for name in ("timeout", "give_up_after", "max_duration", "drain"):
            require((getattr(self, name) or 0) <= LONGEST_S, f"{flag(name)} must be ten years or less")
        if self.until is not None:
            require(
                is_clock(self.until), f"--until {self.until} is not a time of day; write for example 06:30"
            )
        require(self.max_cost is None or self.max_cost > 0, "--max-cost must be more than 0 dollars")
        require(self.drain >= 0, f"--drain must be 0 seconds or more, not {self.drain:g}")
        require(
            self.decode_memory is None or self.decode_memory > 0,
            f"--decode-memory must be more than 0, not {self.decode_memory}",
        )

    def patience_s(self, otherwise: float) -> float:
        """How long the endpoint may be unavailable; returns `otherwise` if --give-up-after is not set."""
        return otherwise if self.give_up_after is None else self.give_up_after

    def tolerates(self, failed: int, total: int) -> bool:
        """Whether this many failures out of `total` images are within --max-failures."""
        if self.max_failures.endswith("%"):
            return failed * 100 <= float(self.max_failures[:-1]) * total
        return failed <= int(self.max_failures)


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayOptions:
    """The dry run, the display, the reports and the prices. Only the prices change a record (its `cost`)."""

    dry_run: bool = option(
        False,
        "Count the images, show what a run would send and where, and send nothing.",
        section="Try without a run",
    )
    probe: int | None = option(
        None,
        "With --dry-run: ask about this many images, and estimate time and tokens for all images.",
        section="Try without a run",
        metavar="N",
    )
    prices: str | None = option(
        None,
        "Calculate the cost of answers with the prices in this JSON file (LiteLLM's format).",
        metavar="FILE",
    )
    format: str = option(
        "auto",
        "How answers appear on standard output. auto is text on a terminal without -o and -q, else jsonl.",
        metavar="auto|text|jsonl",
        choices=("auto", "text", "jsonl"),
        harmless=True,
    )
    quiet: bool = option(False, "Print only errors and warnings.", short="-q")
    verbose: bool = option(False, "Also print each retry and each failed image.", short="-v", harmless=True)
    log_json: bool = option(False, "Print each event as a line of JSON on standard error.")
    summary: str | None = option(
        None, "Write the summary and the exit code of the run to this JSON file.", metavar="FILE"
    )
    metrics_file: str | None = option(
        None,
        "Write metrics for Prometheus to this file, in the textfile folder of the node exporter.",
        metavar="FILE",
    )
    traces: bool = option(False, "Send traces over OTLP to the address in OTEL_EXPORTER_OTLP_ENDPOINT.")

    def __post_init__(self) -> None:
        require(
            self.format in ("auto", "text", "jsonl"),
            f"--format {self.format} is not known; write auto, text or jsonl",
        )
        require(self.probe is None or self.probe > 0, f"--probe must be at least 1, not {self.probe}")
        require(self.probe is None or self.dry_run, "--probe needs --dry-run; add it, or leave --probe out")
        require(
            self.prices is None or self.probe is not None or not self.dry_run,
            "--prices has no effect with --dry-run alone; add --probe N",
        )
        require(not (self.quiet and self.verbose), "--quiet and --verbose are both set; keep one of them")
