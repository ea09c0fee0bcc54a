"""Claim: each file gives a right picture, a warning, or a refusal by name, and never a wrong picture.

Synthesises files of every format that vlmbatch reads, in the depths, byte orders, compressions and colours
that the formats have, and compares what `vlmbatch.imaging.prepare.prepare` makes of each with the picture
that was put into it. A second decoder, which shares no code with Pillow, reads each file too:

- right: the mean absolute difference to what was written, or to a second decoder that sees that, is under 3
  of 255, and in each sixteenth of the picture under 12; twice that for HDR, wide colours and linear light,
  since Pillow decodes their 10 to 16 bits to 8, of which one step is several of sRGB;
- no reference: no second decoder sees the written picture, and one sees the sent picture;
- confirmed: a second decoder sees the written picture.

A warning about scaled values, or about further pages or frames, does not excuse a different picture. The exit
code is 1 if any is wrong.

    python benchmarks/picture_sweep.py [--only tiff,png] [--keep FOLDER] [--list-wrong]
"""

import argparse
import functools
import importlib
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from claim import Table
from sweep.case import Case, Outcome, Verdict, outcome

FORMATS = ("tiff", "png", "jpeg", "avif", "heic", "webp", "bmp", "gif")
_KEPT_NAME = str.maketrans({"/": "-", " ": "_", ",": "", "'": ""})


def outcomes_of(name: str, folder: Path | None = None) -> list[Outcome]:
    """The outcomes of the files of one format; each file is also written to the folder."""
    outcomes = []
    for case in importlib.import_module(f"sweep.{name}").cases():
        if folder:
            _keep(case, folder / name)
        outcomes.append(outcome(case))
    return outcomes


def _keep(case: Case, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{case.name.translate(_KEPT_NAME)}.{folder.name}").write_bytes(case.data)


def table(outcomes: Sequence[Outcome]) -> Table:
    """A row a format, and the totals."""
    by_format: dict[str, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        by_format[one.format].append(one)
    by_format["all"] = list(outcomes)
    rows = []
    for name, these in by_format.items():
        counts = Counter(one.verdict for one in these)
        confirmed = sum(one.is_confirmed for one in these)
        rows.append((name, *map(str, (len(these), *(counts[verdict] for verdict in Verdict), confirmed))))
    return Table(head=("", "tried", *Verdict, "confirmed"), rows=tuple(rows))


def report(outcomes: Iterable[Outcome], *, list_wrong: bool) -> int:
    """Print the outcomes that are not right: a line for each kind and reason, or for each wrong file.

    Returns the exit code.
    """
    groups: dict[tuple[str, ...], list[Outcome]] = defaultdict(list)
    for one in outcomes:
        name = one.name if list_wrong else one.name.partition(",")[0]
        is_wrong = one.verdict in (Verdict.WRONG, Verdict.NO_REFERENCE)
        if is_wrong or (not list_wrong and one.verdict is not Verdict.RIGHT):
            groups[one.verdict, one.format, name, "" if is_wrong else one.reason].append(one)
    for (verdict, name, kind, _), these in sorted(groups.items()):
        files = f"{len(these)} files" if len(these) > 1 else "1 file"
        print(f"{verdict}: {name} {kind}, {files}: {these[0].reason}")
    return int(any(verdict == Verdict.WRONG for verdict, *_ in groups))


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(FORMATS), help="these formats, separated by commas")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write each file there, too")
    parser.add_argument("--list-wrong", action="store_true", help="list each wrong file, and nothing else")
    given = parser.parse_args()
    names = given.only.split(",")
    if unknown := set(names) - set(FORMATS):
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(FORMATS)}")
    # a fresh process for each format, without locks and threads of other libraries
    with ProcessPoolExecutor(mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        found = processes.map(functools.partial(outcomes_of, folder=given.keep), names)
        outcomes = [one for some in found for one in some]
    status = report(outcomes, list_wrong=given.list_wrong)
    print(table(outcomes).markdown())
    return status


if __name__ == "__main__":
    sys.exit(main())
