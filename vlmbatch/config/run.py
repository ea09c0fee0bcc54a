"""How a run goes: where its records go, how hard it asks, when it ends, and what it tells of itself."""

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
    """Where records go, and what is asked again."""

    output: str = option(
        "-",
        "Append records to this file and skip what it has done already; - is standard output.",
        short="-o",
        metavar="FILE",
    )
    retry_failed: bool = option(False, "Ask again also for images that failed for good.")
    overwrite: bool = option(False, "Start the output file anew.")
    append: bool = option(False, "Add to an output file that holds records of other settings.")
    dedupe: bool = option(True, "Ask about images of the same content once, and give all of them the answer.")
    cache: str | None = option(
        None,
        "Keep answers in this folder, and take from it what was asked before with the same settings.",
        metavar="DIR",
    )

    def __post_init__(self) -> None:
        require(
            not (self.overwrite and self.append), "--overwrite and --append are both set; keep one of them"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How hard the endpoint is asked, and when to give up."""

    concurrency: int | None = option(
        None,
        "How many requests at once; auto finds out what the endpoint does best with.",
        short="-c",
        metavar="N|auto",
        parse=parse_concurrency,
        shown_default="auto",
    )
    rpm: float | None = option(
        None, "Ask at most this many times a minute, evenly spaced.", metavar="N", shown_default="no limit"
    )
    timeout: float = option(
        300.0, "Seconds that one attempt may take.", metavar="TIME", parse=parse_duration, shown_default="300"
    )
    retries: int = option(8, "How often an image is asked again after a passing failure.", metavar="N")
    max_failures: str = option(
        "0", "Exit with 0 when at most this many images (N or N%) failed.", metavar="N", parse=parse_failures
    )
    give_up_after: float | None = option(
        None,
        "How long the endpoint may stay away.",
        metavar="TIME",
        parse=parse_duration,
        shown_default="5 s at the start, 15m later",
    )
    until: str | None = option(
        None,
        "Begin no image after this time of day, and leave the rest for the next run (exit code 6).",
        metavar="HH:MM",
        parse=parse_clock,
    )
    max_duration: float | None = option(
        None,
        "Begin no image after so long, and leave the rest for the next run (exit code 6).",
        metavar="TIME",
        parse=parse_duration,
    )
    max_cost: float | None = option(
        None,
        "Begin no image once so many dollars are spent, and leave the rest for the next run (exit code 6).",
        metavar="DOLLARS",
    )
    drain: float = option(
        30.0,
        "How long a run that is told to stop waits for the answers in flight.",
        metavar="TIME",
        parse=parse_duration,
        shown_default="30s",
    )
    decode_memory: int | None = option(
        None,
        "Memory that pictures take together while they are decoded.",
        metavar="SIZE",
        parse=parse_size,
        shown_default="a quarter of what there is, 2 GiB at most",
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
        """How long the endpoint may stay away; `otherwise` where --give-up-after is not given."""
        return otherwise if self.give_up_after is None else self.give_up_after

    def tolerates(self, failed: int, total: int) -> bool:
        """Whether this many failures out of `total` images still count as success."""
        if self.max_failures.endswith("%"):
            return failed * 100 <= float(self.max_failures[:-1]) * total
        return failed <= int(self.max_failures)


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayOptions:
    """What a person is told; none of it changes a record."""

    dry_run: bool = option(False, "Walk, read headers, tell what would be sent where, and send nothing.")
    probe: int | None = option(
        None,
        "With --dry-run, ask about this many images, and tell what time and tokens all of them will take.",
        metavar="N",
    )
    prices: str | None = option(
        None,
        "Reckon what answers cost by the prices in this JSON file (as LiteLLM's), also with --probe.",
        metavar="FILE",
    )
    quiet: bool = option(False, "Say nothing but errors.", short="-q")
    verbose: bool = option(False, "Tell every retry and every failed image.", short="-v")
    log_json: bool = option(False, "Tell each event as one JSON line on standard error.")
    summary: str | None = option(
        None, "Write how the run ended to this file, as JSON, with its exit code.", metavar="FILE"
    )
    metrics_file: str | None = option(
        None,
        "Keep Prometheus metrics in this file, for a node exporter's textfile folder.",
        metavar="FILE",
    )

    def __post_init__(self) -> None:
        require(self.probe is None or self.probe > 0, f"--probe must be at least 1, not {self.probe}")
        require(self.probe is None or self.dry_run, "--probe belongs to --dry-run; add that, or leave it out")
        require(
            self.prices is None or self.probe is not None or not self.dry_run,
            "--prices tells nothing with --dry-run alone; add --probe N",
        )
        require(not (self.quiet and self.verbose), "--quiet and --verbose are both set; keep one of them")
