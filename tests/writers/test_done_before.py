"""Which images are done in an output, before the model of a run is known."""

from pathlib import Path

import pytest
from written_results import STAMP, answered, failed, ref, write

from vlmbatch.config.run import OutputOptions
from vlmbatch.errors import ConfigError, FailureKind
from vlmbatch.writers.done_before import done_before

ASKED = {"model": "", "prompt": "What?"}
APPEND = OutputOptions(output="o", append=True)


def done_in(
    path: Path, *, retry_failed: bool = False, unknown: str = "model"
) -> dict[str, bool | None] | None:
    """For each image, whether it is done, as protocols.Finished says; None if no run fits."""
    again = frozenset[FailureKind]()
    found = done_before(str(path), ASKED, (unknown,), retry_failed=retry_failed, again=again)
    return found and {name: found(ref(name), lambda _: STAMP) for name in ("a", "b", "c")}


async def test_the_newest_run_with_these_settings_counts(tmp_path: Path) -> None:
    """Of the runs whose known settings are the same, only the last one in FILE.runs says what is done."""
    path = tmp_path / "o.jsonl"
    assert done_in(path) is None
    await write(path, [answered("a", run="r1")], run="r1", settings={"model": "one", "prompt": "What?"})
    await write(path, [answered("c", run="r2")], APPEND, run="r2", settings={"model": "one", "prompt": "No?"})
    assert done_in(path) == {"a": True, "b": None, "c": None}
    results = [answered("b", run="r3"), failed("c", run="r3")]
    await write(path, results, APPEND, run="r3", settings={"model": "two", "prompt": "What?"})
    assert done_in(path) == {"a": None, "b": True, "c": False}
    assert done_in(path, retry_failed=True) == {"a": None, "b": True, "c": None}
    assert done_in(path, unknown="temperature") is None


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    """A file that vlmbatch has not written is refused, and a FIFO is not read."""
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("My thesis")
    with pytest.raises(ConfigError, match="something other than vlmbatch records"):
        done_in(thesis)
    assert done_in(Path("/dev/null")) is None
