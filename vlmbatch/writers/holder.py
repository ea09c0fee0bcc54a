"""The run that holds a soft lock: its machine and its process, and whether that process still runs."""

import contextlib
import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal, Self

from vlmbatch import strict_json, system

TIME = re.compile(r"[0-9TZ:-]{1,20}")
_TOKEN = re.compile(r"[0-9a-f]{32}")
_MOST_PROCESSES = 1 << 31
_OF_NO_CONTAINER = "pid:[4026531836]"  # PROC_PID_INIT_INO in the kernel's linux/proc_ns.h

State = Literal["running", "ended", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A run, as its lock file describes it. What a system does not tell is an empty text.

    `machine` is the number that systemd gives an installation (machine-id(5)), `boot` that of a start of the
    kernel. A process number belongs to a `namespace` (pid_namespaces(7)); `born` is the time of the process's
    start in ticks of the kernel, since a number is used again. `token` is new for each run.
    """

    host: str
    machine: str
    boot: str
    namespace: str
    pid: int
    born: str
    started: str
    token: str

    @classmethod
    def of_this_process(cls, started: str) -> Self:
        """This run, which began at `started`."""
        return cls(
            host=_printable(socket.gethostname()),
            machine=_text("/etc/machine-id"),
            boot=_text("/proc/sys/kernel/random/boot_id"),
            namespace=_namespace(),
            pid=os.getpid(),
            born=_born(os.getpid()),
            started=started,
            token=token_hex(16),
        )

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """The run that a lock file describes; None if the file is empty, torn or not of vlmbatch."""
        try:
            content = strict_json.loads(data)
        except ValueError:
            return None
        return cls(**content) if _is_valid(content) else None

    def to_bytes(self) -> bytes:
        """The content of a lock file."""
        return json.dumps(asdict(self)).encode("ascii") + b"\n"

    def state(self) -> State:
        """Whether this run is still at work; unknown for one of another machine or container."""
        here = self.of_this_process(self.started)
        if (self.host, self.machine) != (here.host, here.machine):
            return "unknown"
        if self.boot != here.boot:
            # the name and the number of a container may come from its image, which runs on many machines
            return "ended" if self.machine and self.namespace == _OF_NO_CONTAINER else "unknown"
        if self.namespace != here.namespace:
            return "unknown"
        return self._state_of_process()

    def _state_of_process(self) -> State:
        is_running = system.is_running(self.pid)
        if is_running is None:
            return "unknown"
        born = _born(self.pid) if is_running else ""
        if not is_running or (self.born and born and born != self.born):
            return "ended"
        return "running" if self.born and born else "unknown"


def _is_valid(content: Any) -> bool:
    names = {field.name for field in fields(Holder)}
    if not isinstance(content, dict) or content.keys() != names:
        return False
    texts: Mapping[str, Any] = {name: content[name] for name in names - {"pid"}}
    if not all(isinstance(text, str) and text.isprintable() for text in texts.values()):
        return False
    if type(content["pid"]) is not int or not 0 < content["pid"] < _MOST_PROCESSES:
        return False
    return bool(TIME.fullmatch(texts["started"]) and _TOKEN.fullmatch(texts["token"]))


def _text(path: str) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):  # not Linux
        return _printable(Path(path).read_text().strip())
    return ""


def _printable(text: str) -> str:
    """The text with question marks for what `_is_valid` refuses; the name of a host may have any bytes."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _namespace() -> str:
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _born(pid: int) -> str:
    """The start of a process in ticks since the start of the kernel (proc_pid_stat(5), field 22).

    "gone" for one that has ended and that its parent has not asked about; empty if unknown.
    """
    with contextlib.suppress(OSError, IndexError):
        if str(Path("/proc/self").readlink()) != str(os.getpid()):
            return ""  # this /proc counts the processes of another namespace
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        state, *others = stat[stat.rindex(b")") + 1 :].split()  # the name may have spaces
        return "gone" if state in (b"Z", b"X") else others[18].decode("ascii")
    return ""
