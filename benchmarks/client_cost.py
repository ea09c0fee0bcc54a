"""Claim: the client CPU of vlmbatch for an image is near the limit, and below that of scripts.

CPU milliseconds of the client process for one image: for 12-megapixel photographs, which have to be shrunk,
and for images of 640x480, which need not. Contenders: vlmbatch over both wires, two kinds of scripts, the
bare parts.

    python benchmarks/client_cost.py [--rounds 3] [--quick]
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import corpora
import endpoints
from claim import Claim, Effort, Panel, Spread, Table, main, short, times
from measuring import contend, rounds_of, workplace

SLOTS = 16
LATENCY_S = 0.05
PLAIN = "plain: ollama, threads, gather"
BYTES = "plain, given bytes"
ASYNC = "AsyncOpenAI, semaphore"
BARE = "the bare parts, Pillow"
BARE_AS_IS = "the bare parts, small ones as they are"
OLLAMA, VLLM = "vlmbatch, ollama", "vlmbatch, vllm"
MEASURED = f"""\
User and system time of the client process in milliseconds an image, after its imports and two images to
warm up, until its last record. {{photos}} photographs of 12 megapixels (2.3 MB) and {{smalls}}
images of 640x480 (42 kB), {SLOTS} at once, an endpoint in a process of its own that answers after
{LATENCY_S * 1000:.0f} ms, each contender in a fresh process. All shrink to 1024 pixels and JPEG quality
85. *plain* (benchmarks/contenders/plain.py) prepares all images with Pillow (open, convert, Lanczos) and
sends them with the ollama package in threads. It passes base64, as tutorials do, and in the next
line bytes, which the package handles faster. *AsyncOpenAI* (openai_async.py) uses `Image.thumbnail` in
threads. *The bare parts* (bare_parts.py) decode small, shrink, encode and write to a socket, and nothing
else: the limit for Pillow. In the last line, as in vlmbatch, small JPEGs are only checked to be
whole, and sent as they are. vlmbatch also hashes each file, reads profile and orientation, writes full
records and sends two more requests at the start. Without the extra `fast` (cykooz.resizer, named above if
installed), it takes a quarter more for a photograph."""


def measure(effort: Effort) -> list[Claim]:
    """Measure the claim."""
    counts = {"12 megapixels": 2, "640x480": 4} if effort.quick else {"12 megapixels": 16, "640x480": 400}
    cost: dict[str, dict[str, Spread]] = {}
    with workplace() as folder:
        corpora.photographs(folder / "12 megapixels", counts["12 megapixels"])
        corpora.small(folder / "640x480", counts["640x480"])
        corpora.photographs(folder / "warm", 2)
        with endpoints.slots(SLOTS, LATENCY_S) as url, endpoints.slots(1, 0.0) as prompt_url:
            for size, count in counts.items():
                asked = partial(_cost, folder, size, count)
                runs: dict[str, Callable[[], float]] = {
                    OLLAMA: partial(asked, "vlmbatch_run", url, "ollama"),
                    VLLM: partial(asked, "vlmbatch_run", url, "vllm"),
                    PLAIN: partial(asked, "plain", url, "ollama"),
                    BYTES: partial(asked, "plain", url, "ollama", as_bytes=True),
                    ASYNC: partial(asked, "openai_async", url, "openai"),
                    BARE: partial(asked, "bare_parts", prompt_url, "ollama"),
                    BARE_AS_IS: partial(asked, "bare_parts", prompt_url, "ollama", as_is=True),
                }
                measured = rounds_of(effort.rounds, runs)
                cost[size] = {name: Spread.of(figures) for name, figures in measured.items()}
    photos, smalls = counts.values()
    return [_claim(cost, MEASURED.format(photos=photos, smalls=smalls), effort.rounds)]


def _cost(
    folder: Path,
    size: str,
    count: int,
    contender: str,
    url: str,
    wire: str,
    *,
    as_bytes: bool = False,
    as_is: bool = False,
) -> float:
    """CPU milliseconds an image."""
    told = contend(
        contender,
        folder=folder / size,
        warm=folder / "warm",
        output=_fresh(folder),
        url=url,
        wire=wire,
        concurrency=SLOTS,
        as_bytes=as_bytes,
        as_is=as_is,
    )
    assert told["images"] == count, told
    return 1000 * float(told["cpu_s"]) / count


def _fresh(folder: Path) -> Path:
    """The path of a new output file."""
    return folder / f"{len(list(folder.iterdir()))}.jsonl"


def _claim(cost: dict[str, dict[str, Spread]], measured: str, rounds: int) -> Claim:
    sizes = list(cost)
    rows = []
    for name in cost[sizes[0]]:
        cells = [name]
        for size in sizes:
            figure = cost[size][name]
            cells += [str(figure), *(f"{figure.median / cost[size][of].median:.2f}" for of in (PLAIN, BARE))]
        rows.append(tuple(cells))
    head = ("CPU ms an image", *(c for size in sizes for c in (size, "of plain", "of the bare parts")))
    ours, plain, bare = ([cost[size][name].median for size in sizes] for name in (OLLAMA, PLAIN, BARE))
    return Claim(
        name="client-cost",
        title="Client CPU of an image",
        measured=measured,
        rounds=rounds,
        ratio=(
            f"A 12-megapixel photograph costs the plain script {times(plain[0], ours[0])} what it costs "
            f"vlmbatch, an image of 640x480 {times(plain[1], ours[1])}. vlmbatch takes "
            f"{ours[0] / bare[0]:.2f} of the bare parts for the one, {ours[1] / bare[1]:.2f} for the other."
        ),
        tables=(Table(head=head, rows=tuple(rows)),),
        panels=tuple(
            Panel(
                title=size,
                unit="CPU ms an image",
                places=tuple(cost[size]),
                series={"": tuple(spread.median for spread in cost[size].values())},
            )
            for size in sizes
        ),
        short=(
            "client CPU for a 12-megapixel photograph",
            f"{short(ours[0])} ms",
            f"{short(plain[0])} ms",
            f"{times(plain[0], ours[0])} less",
        ),
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=3))
