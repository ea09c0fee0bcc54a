"""All Python examples of the pages pass mypy and pyright, unchanged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, examples

PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
MYPY = (
    "mypy",
    "--strict",
    "--config-file=",
    f"--cache-dir={ROOT / '.mypy_cache' / 'examples'}",
    "--disable-error-code=import-untyped",  # of packages that the reader chooses, such as pandas
    "--disable-error-code=import-not-found",
)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of all examples, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in PAGES:
        for number, block in enumerate(examples(name), start=1):
            Path(f"{Path(name).stem.replace('-', '_')}_{number}.py").write_text(block, encoding="utf-8")
    return sorted(path.name for path in tmp_path.glob("*.py"))


@pytest.mark.long
def test_the_examples_pass_mypy(files: list[str]) -> None:
    """mypy --strict finds no mistake in any example."""
    done = subprocess.run([sys.executable, "-m", *MYPY, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(files) > 20


@pytest.mark.long
def test_the_examples_pass_pyright(files: list[str]) -> None:
    """pyright finds no mistake in any example."""
    pytest.importorskip("pyright")
    Path("pyrightconfig.json").write_text(json.dumps({"reportMissingImports": False}))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    quiet = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}  # else it looks for a new version
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(files) > 20
