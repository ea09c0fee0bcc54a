"""A run writes JSON lines, and says so before it creates a file whose name promises another form."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from endpoint import Endpoint
from inside import called, finish

from vlmbatch.cli.output_name import FORMS, require_records_name
from vlmbatch.errors import ConfigError

Photos = Callable[..., Path]
ANSWER = 'a "quoted", <b>\nanswer'
DRY = ("run", "photos", "--dry-run", "-b", "ollama")


@pytest.mark.parametrize("ending", FORMS)
def test_a_name_that_promises_another_form_is_refused(photos: Photos, ending: str) -> None:
    """The run exits with 2, creates no file, and names the file to write and the command for that form."""
    photos(1)
    done = called(*DRY, "-o", f"my captions{ending.upper()}")
    assert done.returncode == 2
    assert f"--output my captions{ending.upper()}: a run writes JSON lines, not {ending[1:].upper()}; " in (
        done.stderr
    )
    assert "write -o 'my captions.jsonl', and turn the records into " in done.stderr
    assert [path.name for path in Path().iterdir()] == ["photos"]


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_each_command_with_jq_makes_its_form(photos: Photos, endpoint: Endpoint) -> None:
    """Each command of the messages runs as it is shown, and its file has all answers and failures."""
    photos(2)
    Path("photos/broken 'x'.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    endpoint.answer = lambda request: ANSWER
    made = run("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-q", "-o", "FILE of.jsonl")
    assert made.returncode == 3, made.stderr
    for ending in set(FORMS) - {".parquet"}:
        with pytest.raises(ConfigError) as refused:
            require_records_name(f"FILE of{ending}")
        subprocess.run(["bash", "-c", str(refused.value).partition(" afterwards with: ")[2]], check=True)
    for file in Path().glob("FILE of.[!j]*"):
        text = file.read_text()
        assert all(text.count(name) == 1 for name in (".png", "p0000.", "p0001.")), text
        assert "null" not in text
    rows = csv.reader(Path("FILE of.csv").read_text().splitlines(keepends=True))
    assert [row[2] for row in rows if row[1] == "ok"] == [ANSWER] * 2
    assert {line.count("\t") for line in Path("FILE of.tsv").read_text().splitlines()} == {2}
    assert len(json.loads(Path("FILE of.json").read_text())) == 3
    assert "<b>" not in Path("FILE of.html").read_text()
    assert {file.suffix for file in Path().glob("FILE of.*")} - {".jsonl", ".runs", ".lock"} == (
        {ending for _, ending, _ in FORMS.values()} - {".parquet"}
    )


def test_parquet_by_the_command_if_duckdb_is_installed(photos: Photos, endpoint: Endpoint) -> None:
    """The command for Parquet writes a file that has every record."""
    duckdb = pytest.importorskip("duckdb")
    photos(2)
    finish(endpoint.url)
    command = FORMS[".parquet"][2].replace("RECORDS", "o.jsonl").replace("FILE", "o.parquet")
    subprocess.run(["bash", "-c", command.replace("python", sys.executable, 1)], check=True)
    assert len(duckdb.read_parquet("o.parquet").fetchall()) == 2


def test_a_file_with_our_records_keeps_its_name(photos: Photos, endpoint: Endpoint) -> None:
    """A run goes on in an output of an earlier version with any name, and not in an empty or foreign one."""
    photos(2)
    finish(endpoint.url)
    Path("o.jsonl").rename("o.json")
    assert called(*DRY, "-o", "o.json").returncode == 0
    for name, content in (("e.csv", ""), ("f.csv", "name,answer\n")):
        Path(name).write_text(content)
        assert "a run writes JSON lines, not CSV" in called(*DRY, "-o", name).stderr
        assert Path(name).read_text() == content


@pytest.mark.parametrize("name", ["o.jsonl", "o.ndjson", "o", "o.out", "csv", "/dev/null", "x.csv/o"])
def test_other_names_are_free(photos: Photos, name: str) -> None:
    """JSONL, no ending, and unknown endings are accepted."""
    photos(1)
    assert "JSON lines" not in called(*DRY, "-o", name).stderr


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
@pytest.mark.parametrize(("ending", "between"), [(".csv", ","), (".tsv", "\t")])
def test_a_table_has_a_heading_and_one_row_for_each_image(tmp_path: Path, ending: str, between: str) -> None:
    """An image that failed, and was answered by a later run, has one row with its answer."""
    lines = [{"id": "a", "status": status, "response": status, "run": "1"} for status in ("error", "ok")]
    (tmp_path / "RECORDS").write_text("\n".join(map(json.dumps, lines)))
    subprocess.run(["bash", "-c", FORMS[ending][2]], cwd=tmp_path, check=True)
    rows = (tmp_path / "FILE").read_text().replace('"', "").splitlines()
    assert rows == [between.join(row) for row in (("id", "status", "response"), ("a", "ok", "ok"))]
