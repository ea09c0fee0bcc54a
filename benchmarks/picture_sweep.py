"""Claim: of each file there is a right picture, a warning, or a refusal by name, and never a wrong picture.

Synthesises files of every format that vlmbatch reads, in the depths, byte orders, compressions and colours
that the formats have, and compares what `vlmbatch.imaging.prepare.prepare` makes of each with the picture
that was put into it. A second decoder, which shares no code with Pillow, reads each file too:

- right: the mean absolute difference to what was written, or to a second decoder that sees that, is under 3 of 255,
  and in each sixteenth of the picture under 12;
- no reference: no second decoder sees what was written, and one sees what is sent;
- confirmed: a second decoder sees what was written.

A warning about further pages or frames does not excuse a different picture. The exit status is 1 if any is wrong.

    python benchmarks/picture_sweep.py [--only tiff,png] [--keep FOLDER] [--list-wrong]
"""

import argparse
import importlib
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from claim import Table
from sweep.case import Case, Outcome, Verdict, outcome

FORMATS = ("tiff", "png", "jpeg", "avif", "heic", "webp", "bmp", "gif")
_KEPT_NAME = str.maketrans({"/": "-", " ": "_", ",": ""})


def cases(formats: Iterable[str]) -> Iterator[Case]:
    """The files of these formats."""
    for name in formats:
        yield from importlib.import_module(f"sweep.{name}").cases()


def table(outcomes: Sequence[Outcome]) -> Table:
    """A row a format, and the totals."""
    by_format: dict[str, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        by_format[one.case.format].append(one)
    by_format["all"] = list(outcomes)
    rows = []
    for name, these in by_format.items():
        counts = Counter(one.verdict for one in these)
        confirmed = sum(one.is_confirmed for one in these)
        rows.append((name, *map(str, (len(these), *(counts[verdict] for verdict in Verdict), confirmed))))
    return Table(head=("", "tried", *Verdict, "confirmed"), rows=tuple(rows))


def report(outcomes: Iterable[Outcome], *, list_wrong: bool) -> None:
    """Print what is not right: a line for each kind and reason, or, of the wrong ones, for each file."""
    groups: dict[tuple[str, ...], list[Outcome]] = defaultdict(list)
    for one in outcomes:
        name = one.case.name if list_wrong else one.case.name.partition(",")[0]
        is_wrong = one.verdict in (Verdict.WRONG, Verdict.NO_REFERENCE)
        if is_wrong or (not list_wrong and one.verdict is not Verdict.RIGHT):
            groups[one.verdict, one.case.format, name, "" if is_wrong else one.reason].append(one)
    for (verdict, name, kind, _), these in sorted(groups.items()):
        print(f"{verdict}: {name} {kind}, {len(these)} files: {these[0].reason}")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(FORMATS), help="these formats, separated by commas")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write each file there, too")
    parser.add_argument("--list-wrong", action="store_true", help="list each wrong file, and nothing else")
    given = parser.parse_args()
    outcomes = []
    for case in cases(given.only.split(",")):
        if given.keep:
            folder = given.keep / case.format.lower()
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{case.name.translate(_KEPT_NAME)}.{case.format.lower()}").write_bytes(case.data)
        outcomes.append(outcome(case))
    report(outcomes, list_wrong=given.list_wrong)
    print(table(outcomes).markdown())
    return 1 if any(one.verdict is Verdict.WRONG for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
