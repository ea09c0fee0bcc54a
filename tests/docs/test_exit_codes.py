"""docs/exit-codes.md has every exit code of the program."""

import re
from collections.abc import Iterator

from documents import page

from vlmbatch.cli.command_run import PARTLY, STOPPED
from vlmbatch.cli.signals import STOP_SIGNALS
from vlmbatch.errors import VlmbatchError


def exit_codes(error: type[VlmbatchError]) -> Iterator[int]:
    """The exit codes of an error and its subclasses."""
    yield error.exit_code
    for below in error.__subclasses__():
        yield from exit_codes(below)


def test_every_exit_code_has_its_row() -> None:
    """The table of exit codes has one row for each exit code of the program, and no other."""
    listed = [int(code) for code in re.findall(r"^\| (\d+) \|", page("docs/exit-codes.md"), re.MULTILINE)]
    signals = {128 + number for number in STOP_SIGNALS}
    assert signals == {129, 130, 143}
    assert sorted(listed) == sorted({0, 1, PARTLY, STOPPED} | set(exit_codes(VlmbatchError)) | signals)
