#!/bin/sh
# Writes the lock files of the image anew, with the newest releases that pyproject.toml allows. Needs uv.
set -eu
cd "$(dirname "$0")/.."
lock() {
    uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --custom-compile-command "deploy/lock.sh" "$@"
}
lock pyproject.toml --extra service --extra queue --extra heic --extra metrics --extra fast \
    --output-file deploy/requirements.lock
# what makes the wheel: build-system.requires of pyproject.toml, and pip must find it there
python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' |
    lock - --output-file deploy/build.lock
