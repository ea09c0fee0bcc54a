"""Puts something under a name that vlmbatch would use for a file of its own."""

import os
import socket
from pathlib import Path


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/{path.name}")  # the path itself may be too long for a socket
        os.close(folder)


def a_link(path: Path) -> None:
    target = path.with_name("precious")
    target.write_text("precious")
    path.symlink_to(target)


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nothing")


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_second_name(path: Path) -> None:
    """An empty file, as ours may be, that has another name, too."""
    target = path.with_name("precious")
    target.touch()
    path.hardlink_to(target)


NO_FILES = (a_pipe, a_folder, a_socket, a_link, a_dangling_link, a_device, a_second_name)
