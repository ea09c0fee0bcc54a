"""The helper that runs the command: a fork gives the same as a new process."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, can_fork, run

Photos = Callable[..., Path]


@pytest.mark.parametrize(
    ("args", "stdin", "variables", "code"),
    [
        (("run", "photos", "--dry-run"), b"", {"VLMBATCH_LIMIT": "1"}, 0),
        (("run", "-", "--dry-run"), b"photos/p0001.jpg\n", {}, 0),
        (("run", "photos", "--bogus"), b"", {}, 2),
        (("run", "no-such-folder", "-b", "ollama"), b"", {}, 2),
    ],
)
def test_a_fork_gives_the_same_as_a_new_process(
    photos: Photos, args: tuple[str, ...], stdin: bytes, variables: dict[str, str], code: int
) -> None:
    """Arguments, working folder, standard input and variables have the same effects in both."""
    photos(2)
    assert can_fork(stdin, variables) == (sys.platform == "linux")
    fork = run(*args, stdin=stdin, **variables)
    process = run(*args, stdin=stdin, command=COMMAND, **variables)
    assert (fork.returncode, fork.stdout, fork.stderr) == (code, process.stdout, process.stderr)
    assert process.returncode == code


def test_no_fork_knows_the_variables_of_another(photos: Photos) -> None:
    """A variable for one command is gone in the next one."""
    photos(2)
    one = run("run", "photos", "--dry-run", VLMBATCH_LIMIT="1")
    both = run("run", "photos", "--dry-run")
    assert one.stdout + one.stderr != both.stdout + both.stderr


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "PYTHONPATH", "HTTPS_PROXY"])
def test_variables_that_libraries_read_need_a_new_process(name: str) -> None:
    """A variable that Python or a library reads while it is imported would have no effect on a fork."""
    assert not can_fork(b"", {name: "x"})


def test_a_fork_works_in_the_folder_of_its_caller(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change of the working folder, the next fork looks for its paths there."""
    photos(1)
    assert run("run", "photos", "--dry-run").returncode == 0
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert run("run", "photos", "--dry-run").returncode == 2
