"""`vlmbatch serve`: opens the service, and says where it listens."""

import sys
from socket import socket

from vlmbatch import system
from vlmbatch.cli.command_run import DESCRIPTORS, SWITCH_S
from vlmbatch.cli.console import Console
from vlmbatch.cli.signals import run_until_signal
from vlmbatch.config import RunConfig
from vlmbatch.errors import VlmbatchError
from vlmbatch.observers import clean


def show(config: RunConfig) -> int:
    """Serve until a signal ends it; returns the exit code."""
    console = Console(config.display)
    system.allow_files(DESCRIPTORS)
    sys.setswitchinterval(SWITCH_S)

    async def work() -> int:
        await _serve(config, console)
        return 0

    return run_until_signal(work, console)


async def _serve(config: RunConfig, console: Console) -> None:
    from vlmbatch.service.app import app_of
    from vlmbatch.service.log import ServiceLog
    from vlmbatch.service.server import bound_sockets, serve
    from vlmbatch.service.service import opened

    sockets = bound_sockets(config.service)
    log = ServiceLog(console.stream, as_json=config.display.log_json, only_failures=config.display.quiet)
    app = app_of(config, lambda: opened(config, log))
    async with app.router.lifespan_context(app):
        service = app.state.service
        if config.service.metrics_port is not None:
            service.metrics_port = sockets[1].getsockname()[1]
        if not config.display.quiet:
            log.say(_first_line(config, sockets[0], service.models.default.name))
        await serve(app, config, sockets, log)


def print_new_key(name: str, config: RunConfig) -> int:
    """Print the entry of a new API key, and the key itself on standard error; returns the exit code."""
    console = Console(config.display)
    try:
        from vlmbatch.service.keys import new_key

        key, entry = new_key(name)
        console.say(f"the API key of {name}, which is shown only now: {key}")
    except VlmbatchError as error:
        console.say(clean(str(error)))
        return error.exit_code
    finally:
        console.close()
    print(entry, end="")
    return 0


def _first_line(config: RunConfig, listening: socket, model: str | None) -> str:
    host, port = config.service.host, listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    place = f"http://{shown}:{port} (Ctrl-C stops it)"
    return f"serving {model} at {place}" if model else f"serving at {place}; no endpoint has answered yet"
