"""Walking folders: order, laziness, included entries, overlapping and missing PATHs."""

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest
from photo_tree import PNG, failure_of, ids, put, source, unprivileged

from vlmbatch.config import RunConfig
from vlmbatch.config.groups import InputOptions
from vlmbatch.errors import ConfigError
from vlmbatch.events import SourceProblem
from vlmbatch.pipeline.empty_paths import why_refused
from vlmbatch.sources import DirectorySource, open_source
from vlmbatch.sources.own_files import OwnFiles


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the test; ids are relative to it."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestOrderAndIds:
    def test_ids_are_in_byte_order(self) -> None:
        """The ids of a PATH come in the order of `LC_ALL=C sort`, files and folders together."""
        put("p/b.jpg", "p/a.jpg", "p/a/z.jpg", "p/a-b.jpg", "p/B.jpg", "p/a/\u00e9.jpg", "p/a/f/g/h.jpg")
        assert ids("p") == sorted(ids("p"), key=os.fsencode)
        assert ids("p") == [
            "p/B.jpg", "p/a-b.jpg", "p/a.jpg", "p/a/f/g/h.jpg", "p/a/z.jpg", "p/a/\u00e9.jpg", "p/b.jpg"
        ]  # fmt: skip

    def test_paths_keep_the_order_typed(self) -> None:
        """Several PATHs come in the order typed, folders and files mixed."""
        put("b/1.jpg", "a/1.jpg", "c.jpg")
        assert ids("b", "c.jpg", "a") == ["b/1.jpg", "c.jpg", "a/1.jpg"]

    @pytest.mark.parametrize("typed", ["photos", "./photos", "photos/", "photos//", ".//photos/./"])
    def test_same_ids_however_typed(self, typed: str) -> None:
        """`./photos`, `photos/` and `photos` are one folder with one set of ids."""
        put("photos/sub/a.jpg")
        assert ids(typed) == ["photos/sub/a.jpg"]

    def test_current_folder_adds_nothing(self) -> None:
        """The PATH `.` gives ids without a leading `./`."""
        put("a.jpg", "sub/b.jpg")
        assert ids(".") == ["a.jpg", "sub/b.jpg"]

    def test_parents_and_absolute_paths_stay_as_typed(self, here: Path) -> None:
        """`..` and an absolute PATH are kept in the id, and links in it are not resolved."""
        put("real/a.jpg")
        Path("link").symlink_to("real")
        assert ids("real/../link") == ["real/../link/a.jpg"]
        assert ids(f"{here}/link") == [f"{here}/link/a.jpg"]

    def test_odd_names_survive(self) -> None:
        """Names with a newline, an escape or bytes that are not UTF-8 give ids that open the file."""
        odd = [b"p/new\nline.jpg", b"p/\x1b[31m.jpg", b"p/caf\xe9.jpg"]
        Path("p").mkdir()
        for name in odd:
            try:
                Path(os.fsdecode(name)).write_bytes(name)
            except OSError:
                pytest.skip("this file system takes UTF-8 names only")
        photos = source("p")
        assert {os.fsencode(ref.id): photos.read(ref).data for ref in photos} == {name: name for name in odd}

    def test_a_tree_deeper_than_recursion_allows(self) -> None:
        """A tree deeper than Python's recursion limit is walked to its end."""
        deep = "d/" * 300 + "a.jpg"
        put(deep)
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(250)  # not a tree above the usual 1,000, which pytest could not remove
        try:
            assert ids("d") == [deep]
        finally:
            sys.setrecursionlimit(limit)


class TestLaziness:
    def test_first_image_comes_before_later_folders_are_listed(self) -> None:
        """A file put into a later folder after the first image has come is still found."""
        put("p/a/1.jpg", "p/b/1.jpg")
        refs = iter(source("p"))
        assert next(refs).id == "p/a/1.jpg"
        put("p/b/2.jpg")
        assert [ref.id for ref in refs] == ["p/b/1.jpg", "p/b/2.jpg"]

    def test_a_removed_folder_is_reported_and_skipped(self) -> None:
        """A folder that is removed during the walk is reported, and the other folders are walked."""
        put("p/a/1.jpg", "p/b/1.jpg", "p/c/1.jpg")
        problems: list[SourceProblem] = []
        refs = iter(DirectorySource(("p",), InputOptions(), problems.append))
        next(refs)
        shutil.rmtree("p/b")
        assert [ref.id for ref in refs] == ["p/c/1.jpg"]
        assert [problem.path for problem in problems] == ["p/b"]

    def test_a_temporary_file_that_is_gone_is_no_problem(self) -> None:
        """A file without the name of an image that is gone after the listing is ignored, not reported."""
        put("p/a.jpg", "p/b.tmp.123")
        walked = source("p")
        images = iter(walked)
        assert next(images).id == "p/a.jpg"
        Path("p/b.tmp.123").unlink()
        assert (list(images), walked.ignored, walked.unreadable) == ([], 1, 0)


class TestIncludedEntries:
    def test_hidden_entries_are_skipped_below_a_root_only(self) -> None:
        """A hidden file or folder is skipped on a walk and included if it is the PATH."""
        put("p/.a.jpg", "p/.thumbs/b.jpg", "p/c.jpg")
        photos = source("p")
        assert [ref.id for ref in photos] == ["p/c.jpg"]
        assert photos.ignored == 0
        assert photos.skipped_entries == {"hidden": 2}
        assert ids("p/.thumbs", "p/.a.jpg") == ["p/.thumbs/b.jpg", "p/.a.jpg"]

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("@eaDir", "@eaDir"), ("#recycle", "#recycle"), ("#snapshot", "#snapshot"),
            ("@Recycle", "@Recycle"), ("@Recently-Snapshot", "@Recently-Snapshot"),
            ("$RECYCLE.BIN", "$RECYCLE.BIN"), ("~snapshot", "~snapshot"),
            ("$Recycle.Bin", "$RECYCLE.BIN"), ("RECYCLER", "RECYCLER"), ("lost+found", "lost+found"),
            ("LOST.DIR", "LOST.DIR"), ("System Volume Information", "System Volume Information"),
            ("__MACOSX", "__MACOSX"), (".Trash-1000", "hidden"), (".Trashes", "hidden"),
            (".thumbnails", "hidden"),
        ],
    )  # fmt: skip
    def test_the_folder_of_a_system_is_one_skipped_entry(self, name: str, kind: str) -> None:
        """A folder of a NAS or a system is skipped at any depth and counted once, whatever it holds."""
        put(f"p/{name}/a.jpg", f"p/{name}/deep/b.jpg", f"p/2024/{name}/c.jpg", "p/2024/d.jpg")
        put(f"p/{name}/notes.txt", data=b"text")
        photos = source("p")
        assert [ref.id for ref in photos] == ["p/2024/d.jpg"]
        assert photos.skipped_entries == {kind: 2}
        assert photos.ignored == 0

    def test_the_files_of_a_system_are_skipped(self) -> None:
        """Thumbs.db, desktop.ini and AppleDouble files are skipped entries and no other files."""
        put(
            "p/Thumbs.db",
            "p/s/thumbs.db",
            "p/ehthumbs.db",
            "p/desktop.ini",
            "p/s/Desktop.ini",
            "p/._a.jpg",
            "p/a.jpg",
        )
        photos = source("p")
        assert [ref.id for ref in photos] == ["p/a.jpg"]
        assert photos.skipped_entries == {"Thumbs.db": 2, "ehthumbs.db": 1, "desktop.ini": 2, "hidden": 1}
        assert photos.ignored == 0

    def test_only_whole_names_are_those_of_a_system(self) -> None:
        """A folder or photo whose name only resembles that of a system is the user's."""
        names = (
            "lost+found 2024/a.jpg", "Lost+Found/a.jpg", "Recycler/a.jpg", "recycle/a.jpg", "my @eaDir/a.jpg",
            "__MACOSX2/a.jpg", "@home/a.jpg", "#1/a.jpg", "$5/a.jpg", "Thumbs/a.jpg", "@eaDir.jpg",
        )  # fmt: skip
        put(*(f"p/{name}" for name in names))
        photos = source("p")
        assert sorted(ref.id for ref in photos) == sorted(f"p/{name}" for name in names)
        assert photos.skipped_entries == {}

    def test_a_path_brings_the_folder_of_a_system_back(self) -> None:
        """A folder of a system that is a PATH is walked and not counted; a further one in it is skipped."""
        put("p/a.jpg", "p/@eaDir/b.jpg", "p/@eaDir/@eaDir/c.jpg", "p/.hidden/d.jpg", "p/lost+found/e.jpg")
        photos = source("p", "p/@eaDir", "p/.hidden")
        assert [ref.id for ref in photos] == ["p/a.jpg", "p/@eaDir/b.jpg", "p/.hidden/d.jpg"]
        assert photos.skipped_entries == {"@eaDir": 1, "lost+found": 1}
        assert ids("p/@eaDir/@eaDir/") == ["p/@eaDir/@eaDir/c.jpg"]

    def test_include_does_not_bring_a_folder_of_a_system_back(self) -> None:
        """--include selects among the files that are walked, and never those of a folder of a system."""
        put("p/@eaDir/a.jpg", "p/b.jpg")
        assert ids("p", include=("*/@eaDir/*",)) == []
        assert ids("p/@eaDir", include=("*/@eaDir/*",)) == ["p/@eaDir/a.jpg"]

    def test_only_images_are_included_and_the_rest_is_counted(self) -> None:
        """Text, video and camera raw are ignored and counted; extensions count in any case."""
        put("p/a.JPG", "p/b.jpeg", "p/c.heic", data=b"known by its name alone")
        put("p/notes.txt", "p/schema.json", "p/README", data=b"# text\n")
        put("p/film.mp4", data=b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif" + bytes(40))
        put("p/raw.dng", data=b"II*\0" + bytes(60))
        photos = source("p")
        assert [ref.id for ref in photos] == ["p/a.JPG", "p/b.jpeg", "p/c.heic"]
        assert photos.ignored == 5

    def test_first_bytes_identify_a_file_without_a_known_extension(self) -> None:
        """An image without an extension, or with an unknown one, is recognised by its first bytes."""
        put("p/0a1b2c", "p/scan.001")
        put("p/empty", data=b"")
        assert ids("p") == ["p/0a1b2c", "p/scan.001"]

    def test_a_broken_image_is_included(self) -> None:
        """The extension is enough, so that a broken image becomes a failed record and is not skipped."""
        put("p/a.jpg", data=b"")
        assert ids("p") == ["p/a.jpg"]

    def test_a_file_named_as_path_is_always_included(self) -> None:
        """A PATH that is a file is included whatever its name and content."""
        put("notes.txt", "film.mp4", data=b"text")
        assert ids("notes.txt", "film.mp4") == ["notes.txt", "film.mp4"]

    def test_special_files_are_never_opened(self) -> None:
        """A FIFO (it would block), a socket and a link to an endless device are ignored and counted."""
        put("p/z.jpg")
        os.mkfifo("p/fifo.jpg")
        os.mkfifo("p/fifo")
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind("p/socket.jpg")
            Path("p/zero.jpg").symlink_to("/dev/zero")
            Path("p/zero").symlink_to("/dev/zero")
            photos = source("p")
            assert [ref.id for ref in photos] == ["p/z.jpg"]
        assert photos.ignored == 5

    def test_files_that_may_hold_pictures_are_counted_by_kind(self) -> None:
        """Ignored documents, archives, raw photos and films are counted by name or first bytes."""
        put("p/a.jpg")
        put("p/a.pdf", "p/sub/B.PDF", "p/scan", data=b"%PDF-1.7")
        put("p/c.cbz", "p/d.zip", "p/unknown.bin", data=b"PK\x03\x04")
        put("p/e.cr2", "p/f.MOV", "p/g.svg", "p/h.psd", "p/i.tar.gz", "p/j.jxl", "p/notes.txt", data=b"text")
        put("p/.hidden.pdf", data=b"%PDF")
        photos = source("p")
        assert [ref.id for ref in photos] == ["p/a.jpg"]
        assert photos.ignored_kinds == {
            "PDF": 3,
            "ZIP": 2,
            "CBZ": 1,
            "CR2": 1,
            "MOV": 1,
            "SVG": 1,
            "PSD": 1,
            "GZ": 1,
            "JXL": 1,
        }
        assert photos.ignored == 13

    def test_linked_files_are_included_even_if_they_are_missing(self) -> None:
        """A link with the name of an image is included, even if its target is missing, unless it loops."""
        put("elsewhere/a.jpg", "p/b.jpg")
        Path("p/link.jpg").symlink_to("../elsewhere/a.jpg")
        Path("p/gone.jpg").symlink_to("nowhere")
        Path("p/gone.txt").symlink_to("nowhere")
        Path("p/self.jpg").symlink_to("self.jpg")
        photos = source("p")
        assert [ref.id for ref in photos] == ["p/b.jpg", "p/gone.jpg", "p/link.jpg"]
        assert photos.ignored == 2
        assert failure_of("p/gone.jpg").kind == "vanished"

    def test_linked_folders_are_not_followed(self) -> None:
        """A link to a parent folder causes no loop; the PATH itself may be a link."""
        put("p/a.jpg")
        Path("p/loop").symlink_to(".")
        Path("p/up").symlink_to("..")
        Path("linked").symlink_to("p")
        assert ids("p") == ["p/a.jpg"]
        assert ids("linked") == ["linked/a.jpg"]
        assert ids("p/loop") == ["p/loop/a.jpg"]

    def test_an_unreadable_folder_is_reported_and_the_walk_goes_on(self) -> None:
        """A folder that cannot be listed is reported and counted, and the images after it are found."""
        put("p/a/1.jpg", "p/b/1.jpg", "p/c/1.jpg")
        problems: list[SourceProblem] = []
        photos = DirectorySource(("p",), InputOptions(), problems.append)
        Path("p/b").chmod(0)
        try:
            with unprivileged():
                found = [ref.id for ref in photos]
        finally:
            Path("p/b").chmod(0o755)
        assert found == ["p/a/1.jpg", "p/c/1.jpg"]
        assert problems == [SourceProblem(path="p/b", message="cannot be listed: permission denied")]
        assert (photos.unreadable, photos.ignored) == (1, 0)

    def test_entries_behind_a_closed_folder_are_not_lost(self) -> None:
        """A link into a closed folder is included and fails when read; an unreadable file is counted."""
        put("closed/a.jpg", "p/unknown")
        Path("p/link.jpg").symlink_to("../closed/a.jpg")
        Path("closed").chmod(0)
        Path("p/unknown").chmod(0)
        photos = source("p")
        try:
            with unprivileged():
                assert [ref.id for ref in photos] == ["p/link.jpg"]
                assert failure_of("p/link.jpg").kind == "unreadable"
        finally:
            Path("closed").chmod(0o755)
        assert photos.unreadable == 1


class TestOverlap:
    @pytest.mark.parametrize(
        "paths",
        [
            ("p", "p/sub"), ("p/sub", "p"), ("p", "p"), ("./p", "p/"), (".", "p"), ("p/sub/b.jpg", "p"),
            ("p", "p/sub/b.jpg"), ("p/sub/x", "p", "p/sub"), ("p/sub/b.jpg", "p/sub/b.jpg", ".", "p/sub"),
        ],
    )  # fmt: skip
    def test_an_image_under_two_paths_comes_once(self, paths: tuple[str, ...]) -> None:
        """With nested or repeated PATHs, each image comes once, and the count agrees."""
        put("p/a.jpg", "p/sub/b.jpg", "p/sub/x/c.jpg")
        assert sorted(ids(*paths)) == ["p/a.jpg", "p/sub/b.jpg", "p/sub/x/c.jpg"]
        assert source(*paths).count() == 3

    def test_what_the_first_walk_leaves_out_a_second_path_takes(self) -> None:
        """What is hidden, excluded, linked or no image comes when it is named beside the folder it is in."""
        put("p/a.jpg", "p/.hidden/b.jpg", "p/not/c.jpg", "real/d.jpg")
        put("p/e.txt", data=b"text")
        Path("p/link").symlink_to("../real")
        left_out = ("p/.hidden", "p/not", "p/link", "p/e.txt")
        expected = ["p/a.jpg", "p/.hidden/b.jpg", "p/not/c.jpg", "p/link/d.jpg", "p/e.txt"]
        assert ids("p", *left_out, exclude=("not",)) == expected


class TestMissingPaths:
    def test_the_nearest_name_is_suggested(self) -> None:
        """A PATH that does not exist is an error that suggests the nearest existing name."""
        put("photos/holiday/a.jpg")
        with pytest.raises(ConfigError, match=r"^photo does not exist; did you mean photos\?$"):
            source("photo")
        with pytest.raises(ConfigError, match=r"did you mean photos/holiday\?"):
            source("photos/holidays")
        with pytest.raises(ConfigError, match=r"^foto/holiday does not exist; did you mean photos\?$"):
            source("foto/holiday")

    def test_without_a_near_name(self) -> None:
        """If no existing name is similar, none is suggested; the message says what a PATH is."""
        with pytest.raises(
            ConfigError, match=r"^nowhere does not exist; name a folder of images, or an image$"
        ):
            source("nowhere")

    def test_a_url_is_not_a_path(self) -> None:
        """A URL among the PATHs is an error that names --base-url, and shows no password."""
        with pytest.raises(ConfigError, match=r"^http://gpu2:8000/v1 is a URL, not a file; type --base-url"):
            source("http://me:s3cret@gpu2:8000/v1")

    def test_a_pattern_that_matched_nothing(self) -> None:
        """A glob that the shell did not expand is reported as one, with --include to type."""
        with pytest.raises(ConfigError, match=r"try: photos --include '\*\.jpg'"):
            source("photos/*.jpg")

    def test_a_dangling_link_is_reported_as_one(self) -> None:
        """A PATH that is a dangling link is an error that names the target of the link."""
        Path("latest").symlink_to("2024")
        with pytest.raises(ConfigError, match="latest does not exist; it is a link to 2024, which does not"):
            source("latest")

    def test_an_empty_path_is_not_the_current_folder(self) -> None:
        """An empty PATH, as from an unset shell variable, does not walk the current folder."""
        with pytest.raises(ConfigError, match="a PATH is empty"):
            source("")

    def test_a_path_that_cannot_be_reached(self) -> None:
        """A PATH in a closed folder is an error with its reason."""
        put("closed/a.jpg")
        Path("closed").chmod(0)
        try:
            with unprivileged(), pytest.raises(ConfigError, match="cannot be reached: permission denied"):
                source("closed/a.jpg")
        finally:
            Path("closed").chmod(0o755)

    @pytest.mark.parametrize(
        ("text", "length"),
        [
            ("iVBORw0KGg" * 20_000, "200,000"),  # longer than any path
            ("iVBORw0KGg" * 30, "300"),  # longer than a name
            ("/9j/4AAQSk" * 30, "300"),  # a JPEG, whose slashes make short names
            ("data:image/png;base64," + "iVBO/w0KGg" * 30, "322"),
        ],
    )
    def test_base64_is_not_a_path(self, text: str, length: str) -> None:
        """A picture in base64 in the place of a PATH is an error that shows only its start."""
        with pytest.raises(ConfigError) as refused:
            source(text)
        told = "name a file, or in Python give bytes, decoded from base64"
        assert str(refused.value) == f"{text[:40]}... does not exist, and has {length} characters; {told}"

    def test_a_long_path_is_shown_whole(self) -> None:
        """A PATH of more than 255 characters that does not exist is shown whole if it may name a file."""
        path = "nosuch/" * 40 + "cat.jpg"
        with pytest.raises(ConfigError, match=f"^{path} does not exist; name a folder"):
            source(path)

    @pytest.mark.parametrize("path", ["a\0b.jpg", "\udbff.jpg"])
    def test_a_text_that_no_system_takes_for_a_path(self, path: str) -> None:
        """A PATH from Python may have a NUL or half a character; the error shows it, escaped."""
        with pytest.raises(ConfigError, match="cannot be a path") as refused:
            source(path)
        assert repr(path) in str(refused.value)


class TestEmptyPaths:
    @pytest.mark.parametrize(
        ("paths", "empty"),
        [
            (("none",), ["none"]), (("none", "p"), ["none"]), (("p", "none"), ["none"]), (("p", "p"), []),
            (("p/sub", "p"), []), (("p", "p/sub"), []), (("none", "none", "./none/in"), ["none"]),
            (("text", "none", "p/a.jpg"), ["text", "none"]), ((".", "none"), []), (("none", "."), ["none"]),
        ],
    )  # fmt: skip
    def test_the_paths_without_an_image(self, paths: tuple[str, ...], empty: list[str]) -> None:
        """A PATH without an image is empty, unless its images came with an earlier PATH."""
        put("p/sub/b.jpg", "none/in/.hidden.jpg", "none/lost+found/c.jpg")
        put("text/notes.txt", data=b"text")
        Path("p/a.jpg").symlink_to("sub/b.jpg")
        photos = source(*paths)
        found = len(list(photos))
        assert photos.empty_paths == empty
        assert source(*paths).holds_nothing() == (found == 0)

    def test_what_the_options_leave_out_is_not_nothing(self) -> None:
        """A folder is not empty if a glob leaves out an image or a folder, but it is without either."""
        put("p/a.jpg", "q/scan", "r/s/a.jpg")
        put("text/notes.txt", "text/o.jsonl.lock", data=b"text")
        png, nothing = ("*.png",), ()
        for path, include, exclude, expected in (
            ("p", png, nothing, False),
            ("p/a.jpg", png, nothing, False),
            ("q", png, nothing, False),
            ("r", nothing, ("s",), False),
            ("text", png, nothing, True),
            ("text", png, ("*.txt",), True),
        ):
            photos = source(path, include=include, exclude=exclude)
            config = RunConfig.of(path, include=include, exclude=exclude)
            told = why_refused(config, photos)
            assert (told is not None) == expected, path
            assert told is None or "0 files that --include and --exclude accept" in told
            assert list(photos) == []
            assert photos.empty_paths == ([path] if expected else [])

    def test_an_empty_path_beside_one_that_is_left_out(self) -> None:
        """An empty PATH beside one whose images a glob leaves out is no reason to refuse the run."""
        put("p/a.jpg")
        Path("none").mkdir()
        photos = source("none", "p", include=("*.png",))
        assert not photos.holds_nothing()
        assert photos.empty_paths == ["none"]

    def test_looking_for_the_first_image_loses_none(self) -> None:
        """The image that holds_nothing() finds comes once, in its place, and its counters count once."""
        put("p/a.jpg", "p/b.jpg", "p/.c.jpg")
        photos = source("p")
        assert not photos.holds_nothing()
        assert not photos.holds_nothing()
        assert [ref.id for ref in photos] == ["p/a.jpg", "p/b.jpg"]
        assert photos.skipped_entries == {"hidden": 1}
        assert not photos.holds_nothing()

    def test_a_file_is_no_empty_folder(self) -> None:
        """A PATH that is the output of the run itself holds no image, but is no unmounted disk."""
        put("o.jsonl", data=b"text")
        photos = DirectorySource(("o.jsonl",), InputOptions(), own=OwnFiles(["o.jsonl"]))
        assert why_refused(RunConfig.of("o.jsonl"), photos) is None
        assert photos.empty_paths == []

    def test_a_closed_folder_is_empty_and_reported(self) -> None:
        """A PATH that cannot be listed holds no image, and the message says that it could not be read."""
        Path("closed").mkdir(mode=0)
        photos = source("closed")
        with unprivileged():
            message = why_refused(RunConfig.of("closed"), photos)
        Path("closed").chmod(0o755)
        assert message is not None
        assert message.startswith("no image below closed: 1 folder or file could not be read. ")


class TestCount:
    def test_count_agrees_and_leaves_the_counters_alone(self) -> None:
        """A count during a walk changes neither the walk nor its counters."""
        put("p/a.jpg", "p/b/c.png", "p/d")
        put("p/e.txt", "p/@eaDir/f.jpg", data=b"text")
        problems: list[SourceProblem] = []
        photos = DirectorySource(("p",), InputOptions(), problems.append)
        refs = iter(photos)
        next(refs)
        assert photos.count() == 3
        assert photos.ignored == 0
        assert len(list(refs)) == 2
        assert (photos.ignored, photos.skipped_entries, problems) == (1, {"@eaDir": 1}, [])


class TestOpenSource:
    def test_paths_make_a_directory_source(self) -> None:
        """open_source() walks folders and files."""
        put("a.jpg")
        assert [ref.id for ref in open_source((".",), InputOptions(), lambda problem: None)] == ["a.jpg"]

    def test_a_list_cannot_be_combined(self) -> None:
        """`-` together with another PATH is refused."""
        with pytest.raises(ConfigError, match="cannot be combined with other PATHs"):
            open_source(("-", "."), InputOptions(), lambda problem: None)

    def test_a_file_of_that_name(self) -> None:
        """The PATH `./-` is a file named `-`."""
        put("-")
        (ref,) = open_source(("./-",), InputOptions(), lambda problem: None)
        assert Path(ref.uri).read_bytes() == PNG
