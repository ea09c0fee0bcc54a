"""A writer continues the file of an earlier run."""

import asyncio
import os
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from written_results import (
    RUN,
    STAMP,
    answered,
    failed,
    lines_of_runs,
    outcomes,
    records,
    ref,
    write,
    write_missing,
)

from vlmbatch.config.run import OutputOptions
from vlmbatch.errors import ConfigError
from vlmbatch.images import FileStamp, ImageRef
from vlmbatch.records import to_line
from vlmbatch.writers import JsonlWriter
from vlmbatch.writers.resume import LONGEST_LINE, RECORD_START

ANY_TEXT = st.text(st.characters(exclude_categories=()))
ODD_NAMES = ["a.jpg", "line\nbreak.jpg", "\u2028.jpg", "caf\udce9.jpg", '"quoted\\".jpg', "\x00\x1b[31m.jpg"]


def as_json_sees_it(text: str) -> str:
    """The text with each surrogate pair joined to one character, as in JSON."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=5))
def test_any_text_survives_the_file(answers: dict[str, str]) -> None:
    """Ids and answers of any characters come back unchanged, and the next run finds every id done."""
    answers = {as_json_sees_it(image): as_json_sees_it(text) for image, text in answers.items()}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "out.jsonl")
        asyncio.run(write(output, [answered(image, text) for image, text in answers.items()]))
        if answers:
            assert {record["id"]: record["response"] for record in records(output)} == answers
        assert asyncio.run(outcomes(output, answers)) == ["done"] * len(answers)


WHOLE = b"".join(to_line(answered(name, f"It says {name!r}. " * 3).to_record()) for name in ODD_NAMES)
JUNK = st.sampled_from([b"", b"\0" * 40, b"\xe2\x82", b'\0{"v":', b"x" * 20])


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, len(WHOLE)), junk=JUNK)
def test_a_file_cut_anywhere_is_completed(cut: int, junk: bytes) -> None:
    """After a cut at any byte, with or without junk behind it, a resumed file has each id exactly once."""
    assume(cut >= len(RECORD_START) or not junk.strip(b"\0"))  # a shorter start is not recognised as ours
    torn = WHOLE[:cut] + junk
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "out.jsonl")
        output.write_bytes(torn)
        asked = asyncio.run(write_missing(output, ODD_NAMES))
        assert [record["id"] for record in records(output)] == ODD_NAMES
        kept = b"".join(path.read_bytes() for path in Path(folder).glob("out.jsonl.corrupt-*"))
        whole = torn.removesuffix(kept)
        assert whole + kept == torn
        assert output.read_bytes().startswith(whole)
        assert asked == ODD_NAMES[len(whole.splitlines()) :]


async def test_an_incomplete_line_is_counted_and_kept(output: Path) -> None:
    """An incomplete last line moves to a file next to the output; the writer has its size and that name."""
    whole = to_line(answered("a.jpg").to_record())
    output.write_bytes(whole + b'{"v":1,"id":"b')
    writer = await write(output, [])
    assert output.read_bytes() == whole
    assert writer.repaired == 14
    assert writer.kept is not None
    assert Path(writer.kept).read_bytes() == b'{"v":1,"id":"b'


async def test_a_last_line_that_lacks_only_its_end_is_completed(output: Path) -> None:
    """A complete record without its newline gets one, counts as done, and nothing is removed."""
    whole = to_line(answered("a.jpg").to_record())
    output.write_bytes(whole[:-1])
    assert await outcomes(output, ["a.jpg"]) == ["done"]
    assert output.read_bytes() == whole
    assert list(output.parent.glob("*.corrupt-*")) == []


async def test_bad_lines_in_the_middle_are_counted_and_stay(output: Path) -> None:
    """Lines that hold no record are skipped, counted and never rewritten; blank lines are ignored."""
    first, last = (to_line(answered(name).to_record()) for name in ("a.jpg", "b.jpg"))
    bad = [
        b'{"v":1,"id":"torn{"v":1}\n',
        b"\0\0\0\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"v":1,"id":7}\n',
    ]
    content = first + b"".join(bad) + b"\n" + last
    output.write_bytes(content)
    writer = await write(output, [])
    assert writer.bad_lines == len(bad)
    assert output.read_bytes() == content
    assert await outcomes(output, ["a.jpg", "b.jpg", "torn"]) == ["done", "done", "ask"]


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n",
        b"hello",
        b"id,caption\n1,a\n",
        b"[1, 2]\n",
        b'{"name": "x"}\n',
        b'{\n "v": 1\n}',
        b"\x89PNG\r\n",
    ],
)
@pytest.mark.parametrize(
    "options",
    [OutputOptions(), OutputOptions(append=True), OutputOptions(overwrite=True)],
    ids=["plain", "append", "overwrite"],
)
async def test_a_foreign_file_is_left_alone(output: Path, content: bytes, options: OutputOptions) -> None:
    """A file that does not begin with a record is refused and stays unchanged."""
    output.write_bytes(content)
    with pytest.raises(ConfigError, match=r"other than vlmbatch records.*--output"):
        await write(output, [answered("a.jpg")], options)
    assert output.read_bytes() == content
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


async def test_permanent_failures_stay_and_others_are_retried(output: Path) -> None:
    """A permanent failure is not retried, a passing failure is, and --retry-failed retries both."""
    await write(output, [answered("a"), failed("b"), failed("c", retryable=True)])
    assert await outcomes(output, "abcd") == ["done", "failed", "ask", "ask"]
    assert await outcomes(output, "abcd", OutputOptions(retry_failed=True)) == ["done", "ask", "ask", "ask"]


async def test_the_last_line_of_an_image_counts(output: Path) -> None:
    """An answer after a failure finishes an image, and a passing failure after an answer opens it again."""
    await write(output, [failed("a"), answered("a"), answered("b"), failed("b", retryable=True)])
    assert await outcomes(output, "ab") == ["done", "ask"]


@pytest.mark.parametrize(
    "stamp",
    [
        FileStamp(bytes=STAMP.bytes + 1, mtime=STAMP.mtime),
        FileStamp(bytes=STAMP.bytes, mtime=STAMP.mtime + 2e-7),
        None,
    ],
)
async def test_a_changed_file_is_processed_again(output: Path, stamp: FileStamp | None) -> None:
    """An answer does not count if the file now has another size or time, or is missing."""
    await write(output, [answered("a"), failed("b")])
    assert await outcomes(output, "ab", stamp=stamp) == ["ask", "ask"]


async def test_names_that_are_not_utf8_are_distinguished(output: Path) -> None:
    """Two file names that differ in one byte that is not UTF-8 are two images."""
    await write(output, [answered("caf\udce9.jpg")])
    assert await outcomes(output, ["caf\udce9.jpg", "caf\udcea.jpg", "caf.jpg"]) == ["done", "ask", "ask"]


async def test_an_image_that_was_never_read_is_processed_again(output: Path) -> None:
    """A failure without size and time of the file does not count as finished."""
    await write(output, [failed("a", stamp=None)])
    assert await outcomes(output, "a") == ["ask"]


async def test_only_finished_images_are_checked_on_disk(output: Path) -> None:
    """The stamp of a file is not read if it has no record or must be processed again anyway."""
    await write(output, [answered("a"), failed("c", retryable=True)])

    def unwanted(_: ImageRef) -> FileStamp:
        raise AssertionError("looked at a file without need")

    async with JsonlWriter(str(output), OutputOptions()) as writer:
        finished = await writer.begin(RUN, {})
        assert finished(ref("b"), unwanted) is None
        assert finished(ref("c"), unwanted) is None
        with pytest.raises(AssertionError):
            finished(ref("a"), unwanted)


async def test_each_prompt_of_an_image_counts_separately(output: Path) -> None:
    """An image done with one prompt is not done with another; an image without a prompt has the default."""
    await write(output, [answered("a"), answered("b", prompt="colours")])
    async with JsonlWriter(str(output), OutputOptions()) as writer:
        finished = await writer.begin(RUN, {})
        asked = [ref("a"), ref("a", "colours"), ref("b"), ref("b", "colours")]
        assert [finished(image, lambda _: STAMP) for image in asked] == [True, None, None, True]


OLD = {"model": "llava:7b", "prompt": "Describe this image.", "max_size": 1024, "seed": None}
NEW = OLD | {"prompt": "Name the \x1b[31mobjects. " + "x" * 100, "seed": 7}


async def test_records_of_other_settings_are_not_mixed(output: Path) -> None:
    """The refusal names the differences with shortened old and new values, and the file is unchanged."""
    await write(output, [answered("a", run="old")], run="old", settings=OLD)
    with output.open("ab") as file:
        file.write(b"torn")
    before = output.read_bytes()
    with pytest.raises(ConfigError) as caught:
        await write(output, [answered("a")], settings=NEW)
    message = str(caught.value)
    assert "prompt: was 'Describe this image.', now 'Name the \\x1b" in message
    assert "seed: was not set, now 7" in message
    assert all(word in message for word in ("--append", "--overwrite", "--output", "..."))
    assert "model" not in message
    assert "max_size" not in message
    assert max(map(len, message.splitlines()[1:3])) < 150
    assert output.read_bytes() == before


async def test_the_first_difference_of_long_values_is_shown(output: Path) -> None:
    """Of two long prompts that begin alike, the refusal shows the place where they differ."""
    begin = "Describe this image in one or two sentences, for a training caption. " * 3
    await write(output, [answered("a", run="old")], run="old", settings=OLD | {"prompt": begin + "Be short."})
    with pytest.raises(ConfigError) as caught:
        await write(output, [], settings=OLD | {"prompt": begin + "Don't guess."})
    told = "prompt: was ... a training caption. Be short.', now ... a training caption. Don't guess.\""
    assert told in str(caught.value)


async def test_at_most_five_differences_are_named(output: Path) -> None:
    """Of many differing settings, five are named and the rest is counted; five are all named."""
    await write(output, [answered("a", run="old")], run="old", settings=dict.fromkeys("abcdefgh", 1))
    with pytest.raises(ConfigError) as caught:
        await write(output, [], settings=dict.fromkeys("abcdefgh", 2))
    assert "e: was 1, now 2\n  and 3 more\n" in str(caught.value)
    assert "f: " not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        await write(output, [], settings=dict.fromkeys("abcde", 2) | dict.fromkeys("fgh", 1))
    assert "e: was 1, now 2\nAdd --append" in str(caught.value)


@pytest.mark.parametrize("left", [None, b"", b'{"v":1,"run":"old","settings":{"mo', b'{"v":1,"run":"new"}\n'])
async def test_without_the_settings_the_records_are_compared(output: Path, left: bytes | None) -> None:
    """If FILE.runs is lost or damaged, the model and the backend of the records are compared."""
    await write(output, [answered("a", run="old")], run="old", settings=OLD)
    runs = Path(f"{output}.runs")
    runs.unlink() if left is None else runs.write_bytes(left)
    with pytest.raises(ConfigError, match="model: was 'llava:7b', now 'llava:13b'\n"):
        await write(output, [], settings=NEW | {"model": "llava:13b"})
    with pytest.raises(ConfigError, match="no longer known"):
        await write(output, [], settings=NEW)


async def test_append_mixes_and_later_runs_continue(output: Path) -> None:
    """With --append, two runs share the file, each resumes by its own records, and nothing is repeated."""
    await write(output, [answered("a", run="old")], run="old", settings=OLD)
    before = output.read_bytes()
    assert await outcomes(output, "a", OutputOptions(append=True)) == ["ask"]
    await write(output, [answered("b")], OutputOptions(append=True), settings=NEW)
    assert output.read_bytes() == before + to_line(answered("b").to_record())
    assert [line["run"] for line in lines_of_runs(output)] == ["old", RUN]
    assert await outcomes(output, "ab") == ["ask", "done"]
    await write(output, [answered("c", run="old")], run="old", settings=OLD)
    assert [record["id"] for record in records(output)] == ["a", "b", "c"]


async def test_overwrite_starts_anew(output: Path) -> None:
    """With --overwrite nothing of the old content is left, of this run or another."""
    await write(output, [answered("a", run="old")], run="old", settings=OLD)
    await write(output, [answered("b")], OutputOptions(overwrite=True), settings=NEW)
    assert [record["id"] for record in records(output)] == ["b"]
    assert await outcomes(output, "ab") == ["ask", "done"]


async def test_failures_of_a_kind_that_is_now_accepted_are_processed_again(output: Path) -> None:
    """A permanent failure, like an answer that was too long, is open again once its kind is accepted."""
    await write(output, [failed("long.jpg", kind="truncated"), failed("bad.jpg", kind="bad_image")])
    async with JsonlWriter(str(output), OutputOptions(), again=frozenset({"truncated"})) as writer:
        finished = await writer.begin(RUN, {})
        assert finished(ref("long.jpg"), lambda _: STAMP) is None
        assert finished(ref("bad.jpg"), lambda _: STAMP) is False


@pytest.mark.parametrize(
    "content",
    [
        bytes(1_100_000) + b"a thesis",
        '{"v":1,"id":"a.jpg"}\n'.encode("utf-16"),
        b"PK\x03\x04" + bytes(100),
    ],
)
@pytest.mark.parametrize("options", [OutputOptions(), OutputOptions(overwrite=True)])
async def test_a_foreign_binary_file_is_never_touched(
    output: Path, content: bytes, options: OutputOptions
) -> None:
    """A disk image that begins with zeros, a file of another encoding or an archive stays unchanged."""
    output.write_bytes(content)
    with pytest.raises(ConfigError, match="contains something other than vlmbatch records"):
        await write(output, [answered("a.jpg")], options)
    assert output.read_bytes() == content


async def test_millions_of_zeros_take_no_memory_and_no_disk(output: Path) -> None:
    """A tail of zeros, as after a power cut, moves to a sparse file, and the records before it count."""
    await write(output, [answered("a.jpg")])
    size = output.stat().st_size
    os.truncate(output, size + 150_000_000)
    tracemalloc.start()
    try:
        assert await outcomes(output, ["a.jpg", "b.jpg"]) == ["done", "ask"]
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    assert output.stat().st_size == size
    (kept,) = output.parent.glob("*.corrupt-*")
    assert kept.stat().st_size == 150_000_000
    assert kept.stat().st_blocks * 512 < 10_000_000


async def test_a_line_longer_than_any_record_is_a_bad_line(output: Path) -> None:
    """A line longer than any record is skipped and counted, and the lines behind it are read."""
    await write(output, [answered("a.jpg")])
    with output.open("ab") as file:
        file.write(b"x" * (3 * LONGEST_LINE) + b"\n")
    await write(output, [answered("b.jpg")])
    assert await outcomes(output, ["a.jpg", "b.jpg"]) == ["done", "done"]
