"""A stand-in for Windows: code that takes away from Python what only POSIX has, run before the command.

It leaves what the standard library and numpy need themselves on this system, such as sys.platform, SIGKILL
and os.uname.
"""

WINDOWS = """
import asyncio, asyncio.unix_events, os, select, signal, sys

for name in ("fcntl", "resource", "termios", "tty", "pwd", "grp", "syslog"):
    sys.modules[name] = None  # importing it raises ImportError

MISSING = {
    os: "O_NONBLOCK O_NOFOLLOW O_CLOEXEC O_DIRECTORY O_PATH geteuid getuid getegid getgid getgroups fork"
    " sysconf sched_getaffinity sched_yield pread pwrite preadv pwritev register_at_fork set_blocking"
    " get_blocking fchmod fchown chown mkfifo getpgid killpg setsid statvfs fstatvfs posix_fallocate nice",
    signal: "SIGHUP SIGPROF SIGALRM SIGUSR1 SIGUSR2 SIGPIPE SIGQUIT SIGSTOP SIGCONT SIGTSTP setitimer"
    " getitimer alarm pthread_sigmask sigwait pause siginterrupt ITIMER_PROF ITIMER_REAL ITIMER_VIRTUAL",
    select: "poll POLLIN POLLOUT POLLHUP POLLERR",
}
for module, names in MISSING.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)

if hasattr(os, "process_cpu_count"):  # on Linux, Python 3.13 makes it of sched_getaffinity
    os.process_cpu_count = os.cpu_count

os.supports_dir_fd.clear()
os.supports_fd.clear()
opened, listed, looked_at = os.open, os.scandir, os.stat

def open_by_path(path, flags, mode=0o777, *, dir_fd=None):
    if dir_fd is not None:
        raise NotImplementedError("dir_fd unavailable on this platform")
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return opened(path, flags, mode)

def list_by_path(path="."):
    if isinstance(path, int):
        raise TypeError("listdir: path should be string, bytes, os.PathLike or None, not int")
    return listed(path)

def look_by_path(path, *, dir_fd=None, follow_symlinks=True):
    if dir_fd is not None:
        raise NotImplementedError("dir_fd unavailable on this platform")
    return looked_at(path, follow_symlinks=follow_symlinks)

os.open, os.scandir, os.stat = open_by_path, list_by_path, look_by_path

def unavailable(self, *args):
    raise NotImplementedError

loop = asyncio.unix_events.SelectorEventLoop
loop.add_signal_handler = loop.remove_signal_handler = loop.add_reader = loop.add_writer = unavailable
"""
