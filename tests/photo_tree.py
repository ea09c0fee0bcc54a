"""Folders with files that look like images, and the source that walks them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vlmbatch.config.groups import InputOptions
from vlmbatch.errors import ImageError
from vlmbatch.images import ImageRef, SourceImage
from vlmbatch.sources import DirectorySource

PNG = b"\x89PNG\r\n\x1a\n" + bytes(56)
NOBODY = 65534


def put(*names: str, data: bytes = PNG) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)


def source(*paths: str, **options: object) -> DirectorySource:
    return DirectorySource(paths, InputOptions(**options))  # type: ignore[arg-type]  # names of its fields


def ids(*paths: str, **options: object) -> list[str]:
    return [ref.id for ref in source(*paths, **options)]


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run without root's permission to read every file."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(NOBODY)
    except PermissionError:
        pytest.skip("root cannot become another user here")
    try:
        yield
    finally:
        os.seteuid(0)


def read(path: str, **options: object) -> SourceImage:
    return source(".", **options).read(ImageRef(id=path, uri=path))


def failure_of(path: str, **options: object) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read(path, **options)
    return caught.value
