"""Lists of paths from standard input: separators, laziness, duplicates, folders."""

import codecs
import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from photo_tree import put

from vlmbatch.config.groups import InputOptions
from vlmbatch.errors import ConfigError, ImageError
from vlmbatch.events import SourceProblem
from vlmbatch.sources import ListSource, open_source
from vlmbatch.sources.listing import split_paths


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the test; ids are relative to it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(content: bytes, **options: object) -> ListSource:
    return ListSource(io.BytesIO(content), InputOptions(**options))  # type: ignore[arg-type]  # its fields


def ids(content: bytes, **options: object) -> list[str]:
    return [ref.id for ref in listed(content, **options)]


@pytest.mark.parametrize(
    "content",
    [
        b"b.jpg\na.jpg\n",
        b"b.jpg\na.jpg",
        b"\n\nb.jpg\n \na.jpg\n",
        b"b.jpg\r\na.jpg\r\n",
        b"b.jpg\0a.jpg\0",
    ],
)
def test_separators(content: bytes) -> None:
    """Paths come in the order of the list, split by lines or NULs, and blank ones are skipped."""
    assert ids(content) == ["b.jpg", "a.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", ["caf\u00e9.jpg\nb.jpg\n", "caf\u00e9.jpg\r\nb.jpg", "", "\n"])
def test_lists_of_windows(encoding: str, text: str) -> None:
    """A list with a byte order mark, in UTF-8 or as PowerShell's `>` writes it, has the same paths."""
    expected = ["caf\u00e9.jpg", "b.jpg"] if text.strip() else []
    assert ids(text.encode(encoding)) == expected
    assert ids(codecs.BOM_UTF16_BE + text.encode("utf-16-be")) == expected
    slow = [bytes([byte]) for byte in text.encode(encoding)]  # each byte arrives on its own
    assert [path.decode() for path in split_paths(Arriving(slow))] == expected


class Arriving(io.BytesIO):
    """A stream whose pieces arrive one by one."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self._pieces = pieces

    def read1(self, size: int | None = -1, /) -> bytes:
        """The next piece."""
        return self._pieces.pop(0) if self._pieces else b""


def test_what_is_hidden_or_of_a_system_is_read_if_it_is_listed() -> None:
    """Each listed path is read, whatever its name; below a listed folder, such entries are skipped."""
    put("p/@eaDir/a.jpg", "p/.b.jpg", "p/c.jpg")
    photos = listed(b"p/@eaDir/a.jpg\np/.b.jpg\np\n")
    assert [ref.id for ref in photos] == ["p/@eaDir/a.jpg", "p/.b.jpg", "p/c.jpg"]
    assert photos.skipped_entries == {"@eaDir": 1, "hidden": 1}
    assert ids(b"p/@eaDir\n") == ["p/@eaDir/a.jpg"]


def test_a_path_before_more_arrives_is_taken_at_once() -> None:
    """A short first path comes before the list goes on, although a byte order mark could be longer."""
    pieces = [b"a\n", b"b\n"]
    paths = split_paths(Arriving(pieces))
    assert (next(paths), pieces) == (b"a", [b"b\n"])


def test_a_name_that_begins_like_a_mark_needs_nul() -> None:
    """With NUL as separator, the bytes of a byte order mark belong to the first name."""
    assert ids("\ufeffa.jpg\0b.jpg\0".encode()) == ["\ufeffa.jpg", "b.jpg"]


def test_a_list_that_is_cut_in_utf16_is_an_error() -> None:
    """A list in UTF-16 that ends within a character is an error that says what to write."""
    with pytest.raises(ConfigError, match="write it in UTF-8"):
        ids("a.jpg\n".encode("utf-16")[:-1])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("text", ["/a.jpg", "b/\r\n", "b/\n", "caf\u00e9/\nb.jpg\n"])
def test_utf16_without_a_mark_is_an_error(encoding: str, text: str) -> None:
    """A list in UTF-16 without its mark is an error, and no list of the paths `/` and `b`."""
    whole = text.encode(encoding)
    for pieces in ([whole], [whole[:3], whole[3:]]):
        with pytest.raises(ConfigError, match="write it in UTF-8"):
            list(split_paths(Arriving(pieces)))


def test_names_of_one_character_need_no_newline() -> None:
    """A few short names with NUL as separator are names, also if they arrive slowly."""
    for content in (b"a\0b\0c\0", b"a\0b\0long\0c\0d\0"):
        paths = [name.decode() for name in content.split(b"\0") if name]
        assert ids(content) == paths
        slow = [bytes([byte]) for byte in content]
        assert [path.decode() for path in split_paths(Arriving(slow))] == paths


def test_newlines_in_names_need_nul() -> None:
    """With NUL as separator, newlines, returns and blanks belong to the names, also to the first one."""
    assert ids(b"a\nb.jpg\0c.jpg\r\0 \0") == ["a\nb.jpg", "c.jpg\r", " "]


def test_ids_are_those_of_a_walk(here: Path) -> None:
    """A listed path has the same id as in a walk; absolute paths and `..` stay as typed."""
    put("p/a.jpg")
    assert ids(f"./p/a.jpg\np//../p/a.jpg\n{here}/p/a.jpg\n".encode()) == [
        "p/a.jpg",
        "p/../p/a.jpg",
        f"{here}/p/a.jpg",
    ]


def test_names_that_are_not_utf8() -> None:
    """A name that is not UTF-8 survives in an id that opens the same file."""
    try:
        Path(os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"data")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    photos = listed(b"caf\xe9.jpg\n")
    (ref,) = photos
    assert os.fsencode(ref.id) == b"caf\xe9.jpg"
    assert photos.read(ref).data == b"data"


def test_a_repeated_path_comes_once() -> None:
    """A repeated path comes once, also in another spelling."""
    assert ids(b"a.jpg\nb.jpg\n./a.jpg\na.jpg\n") == ["a.jpg", "b.jpg"]


def test_any_listed_file_is_included() -> None:
    """A listed file is included, even if hidden or without an image's name; a missing one fails when read."""
    put(".hidden.jpg", "notes.txt")
    photos = listed(b".hidden.jpg\nnotes.txt\ngone.jpg\n")
    refs = list(photos)
    assert [ref.id for ref in refs] == [".hidden.jpg", "notes.txt", "gone.jpg"]
    with pytest.raises(ImageError) as caught:
        photos.read(refs[2])
    assert (caught.value.kind, caught.value.retryable) == ("vanished", True)
    assert photos.stamp(refs[2]) is None
    assert photos.stamp(refs[1]) == photos.read(refs[1]).stamp


def test_a_folder_is_walked() -> None:
    """A folder in the list is walked like a PATH, so that both `ls` and `find` make usable lists."""
    put("p/a.jpg", "p/sub/b.jpg")
    put("p/notes.txt", data=b"text")
    photos = listed(b"p\np/a.jpg\np/sub\np/sub/b.jpg\n")
    assert [ref.id for ref in photos] == ["p/a.jpg", "p/sub/b.jpg"]
    assert photos.ignored == 1


def test_globs_choose_from_the_list() -> None:
    """--include and --exclude apply to listed files, too."""
    assert ids(b"a.jpg\nb.png\nthumbs/c.jpg\n", include=("*.jpg",), exclude=("thumbs/*",)) == ["a.jpg"]


def test_a_path_comes_before_the_next_is_written() -> None:
    """A path is yielded at once, even if the producer waits before it writes the next one."""
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as stream:
        refs = iter(ListSource(stream, InputOptions()))
        for path in (b"a.jpg\n", b"b.jpg\nc", b".jpg\n"):
            os.write(write_end, path)
            if path != b".jpg\n":
                assert next(refs).id == path[:5].decode()
        os.close(write_end)
        assert [ref.id for ref in refs] == ["c.jpg"]


def test_a_count_is_not_cheap() -> None:
    """count() returns None, since a stream cannot be counted without reading it."""
    assert listed(b"a.jpg\n").count() is None


def test_no_list_of_paths() -> None:
    """Megabytes without a separator are an error and do not fill memory."""
    with pytest.raises(ConfigError, match="one path per line"):
        ids(b"x" * 3_000_000)


def test_a_stream_that_cannot_be_read() -> None:
    """A list that cannot be read is a ConfigError with its reason."""
    with (
        open(os.open("list", os.O_WRONLY | os.O_CREAT), "rb") as stream,
        pytest.raises(ConfigError) as caught,
    ):
        list(ListSource(stream, InputOptions()))
    assert str(caught.value).startswith("standard input cannot be read: bad file descriptor; pipe a list")


def test_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is a list on standard input; closed standard input is an error that says so."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.jpg\n")))
    assert [ref.id for ref in open_source(("-",), InputOptions(), ignore)] == ["a.jpg"]
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigError, match="standard input is closed"):
        open_source(("-",), InputOptions(), ignore)


def ignore(problem: SourceProblem) -> None:
    """Ignore the problem."""


class Dribble(io.BytesIO):
    """A stream that returns at most `at_once` bytes at a time."""

    def __init__(self, content: bytes, at_once: int) -> None:
        super().__init__(content)
        self.at_once = at_once

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1(min(size or 0, self.at_once))


@example(paths=[b"\xef\xbb\xbf"], at_once=1, ended=True)
@given(
    paths=st.lists(st.binary(min_size=1, max_size=5).map(lambda path: path.replace(b"\0", b"x")), min_size=1),
    at_once=st.integers(1, 20),
    ended=st.booleans(),
)
def test_any_names_come_back(paths: list[bytes], at_once: int, ended: bool) -> None:
    """With NUL as separator, names of any bytes come back whole, for any chunks of the stream."""
    assume(not paths[0].startswith((b"\xff\xfe", b"\xfe\xff")))  # the marks of UTF-16
    # the first separator to arrive decides, and names of one character each look like UTF-16
    paths[0] = paths[0].replace(b"\n", b"x") + b"x"
    content = b"\0".join(paths) + b"\0" * (ended or len(paths) == 1)
    assert list(split_paths(Dribble(content, at_once))) == paths
