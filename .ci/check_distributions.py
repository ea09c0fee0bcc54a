"""Checks the files for an index: the wheel has the package alone, the sdist all that its tests need."""

import re
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

FOLDERS = {".ci", "benchmarks", "deploy", "docs", "samples", "tests", "vlmbatch"}
PAGES = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md"}
SETTINGS = {
    ".dockerignore",
    ".gitignore",
    ".pre-commit-config.yaml",
    "PKG-INFO",
    "justfile",
    "pyproject.toml",
}
MODEL = "vlmbatch/backends/llama_cpp/demo_model/"
LINK = re.compile(r"\]\(([^)\s]*)")


def files(folder: str) -> set[str]:
    """The files below a folder of this project, without what Python makes of them."""
    found = (path for path in Path(folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.as_posix() for path in found}


dist = Path(sys.argv[1])
(wheel_path,) = dist.glob("*.whl")
(sdist_path,) = dist.glob("*.tar.gz")

with tarfile.open(sdist_path) as sdist:
    inside = {member.name.partition("/")[2] for member in sdist if member.isfile()}
tops = {name.partition("/")[0] for name in inside}
assert tops == FOLDERS | PAGES | SETTINGS, tops ^ (FOLDERS | PAGES | SETTINGS)
for folder in FOLDERS - {"benchmarks"}:  # benchmarks/ also holds what they make
    assert files(folder) <= inside, files(folder) - inside

with zipfile.ZipFile(wheel_path) as wheel:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    page = message_from_bytes(wheel.read(metadata)).get_payload()
assert packed == files("vlmbatch"), packed ^ files("vlmbatch")
assert {"vlmbatch/py.typed", MODEL + "pixie-q8_0.gguf", MODEL + "mmproj-pixie-q8_0.gguf"} <= packed

relative = [goal for goal in LINK.findall(page) if not goal.startswith(("https://", "#"))]
assert not relative, f"the page on the index has relative links: {relative}"
print(f"{len(packed)} files in the wheel, {len(inside)} in the sdist; all links of the page are absolute")
