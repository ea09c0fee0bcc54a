"""Which error of several is told."""

from vlmbatch.aio import first
from vlmbatch.errors import OutputError


def test_an_error_of_ours_is_told_before_a_bug() -> None:
    """Of errors that came together, also in groups in groups, the one with words and an exit code is told."""
    ours = OutputError("the disk is full")
    inner = ExceptionGroup("inner", [ValueError("a bug"), ours])
    assert first(ExceptionGroup("outer", [KeyError("another bug"), inner])) is ours


def test_a_bug_alone_is_told() -> None:
    """Of a group without an error of ours its first is told, and what is in no group is told as it is."""
    bug = ValueError("a bug")
    assert first(ExceptionGroup("outer", [bug, KeyError("another bug")])) is bug
    assert first(bug) is bug
