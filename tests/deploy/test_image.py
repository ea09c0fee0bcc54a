"""deploy/Dockerfile and its lock files: what goes into the image."""

import json
import re
import subprocess
import sys
import tomllib

import pytest
from command import environment
from documents import ROOT, page
from endpoint import Endpoint
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("service", "queue", "heic", "metrics", "fast")
PROJECT = tomllib.loads(page("pyproject.toml"))
DOCKERFILE = page("deploy/Dockerfile")
LINE = re.compile(
    r"^([\w.-]+)==([^\s;\\]+)[^\n]*\\$((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?$)+)", re.MULTILINE
)


def locked(name: str) -> dict[str, set[str]]:
    """The versions of each package in a lock file; each of them has a digest."""
    text = page(f"deploy/{name}")
    found: dict[str, set[str]] = {}
    for package, version, _ in LINE.findall(text):
        found.setdefault(canonicalize_name(package), set()).add(version)
    assert sum(map(len, found.values())) == len(re.findall("^[a-z]", text, re.MULTILINE))
    return found


@pytest.mark.parametrize(
    ("lock", "needed"),
    [
        (
            "requirements.lock",
            [
                *PROJECT["project"]["dependencies"],
                *(need for extra in EXTRAS for need in PROJECT["project"]["optional-dependencies"][extra]),
            ],
        ),
        ("build.lock", PROJECT["build-system"]["requires"]),
    ],
)
def test_the_lock_files_have_what_the_project_needs(lock: str, needed: list[str]) -> None:
    """Each package of pyproject.toml is in its lock file, in a version that pyproject.toml allows."""
    versions = locked(lock)
    for requirement in map(Requirement, needed):
        found = versions.get(canonicalize_name(requirement.name), set())
        assert found, f"{requirement.name} is missing; run: deploy/lock.sh"
        assert all(requirement.specifier.contains(version) for version in found), requirement


def test_the_image_has_what_it_copies_and_no_more() -> None:
    """Each file that the Dockerfile copies reaches the build, and nothing else does."""
    rules = page(".dockerignore").splitlines()
    let_in = {line[1:] for line in rules if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert let_in == {name for names in copied for name in names.split()}
    assert rules[1] == "*"
    assert all((ROOT / name).exists() for name in let_in)


def test_the_image_runs_as_a_user_without_rights_and_without_a_shell() -> None:
    """The base image has a digest, the user is not root, signals reach vlmbatch, and no shell runs."""
    assert all(
        "@sha256:" in line or line.startswith("FROM base")
        for line in DOCKERFILE.splitlines()
        if "FROM " in line[:5]
    )
    (user,) = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)
    assert int(user) > 0
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)
    assert json.loads(entry) == ["vlmbatch"]
    (check,) = re.findall(r"^    CMD (\[.*)$", DOCKERFILE, re.MULTILINE)
    assert json.loads(check)[:2] == ["python", "-c"]


def test_the_health_check_does_not_ask_a_proxy(endpoint: Endpoint) -> None:
    """A container with the variables of a proxy is healthy: the proxy cannot reach the container itself."""
    (check,) = re.findall(r"^    CMD (\[.*)$", DOCKERFILE, re.MULTILINE)
    _, *words = json.loads(check)
    port = endpoint.url.rpartition(":")[2]
    variables = environment(
        VLMBATCH_PORT=port, http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9"
    )
    done = subprocess.run([sys.executable, *words], env=variables, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
