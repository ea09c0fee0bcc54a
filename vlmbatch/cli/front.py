"""What the command prints before a subcommand is known: its help, and what to type instead of a wrong word.

This module imports nothing heavy: to import typer alone takes longer than all of `vlmbatch --help`.
"""

import sys

COMMANDS = {
    "run": "Ask a vision model about each image in a folder.",
    "doctor": "Check whether a run would work.",
    "models": "List the models of the endpoints.",
    "pull": "Download models with Ollama.",
    "bench": "Measure how fast an endpoint is under load.",
    "serve": "Serve a model over HTTP.",
    "worker": "Work on the jobs in a queue.",
    "enqueue": "Add the images in a folder to a job queue.",
    "collect": "Write the records of a job queue to a file.",
}
"""The commands, each with a line that fits into 60 columns."""
OWN_FLAGS = ("--version", "--install-completion", "--show-completion")
HELP_FLAGS = ("--help", "-h")
USAGE = 2

_LINES = "\n".join(f"  {name:7}  {line}" for name, line in COMMANDS.items())
SHORT_PAGE = """\
vlmbatch asks a vision model about each image in a folder.

Type one of these commands next:
  vlmbatch run FOLDER    describe each image in FOLDER
  vlmbatch doctor        check whether a run would work
  vlmbatch run --help    show the options
"""
PAGE = f"""\
Usage: vlmbatch COMMAND [OPTIONS] ...

vlmbatch asks a vision model about each image in a folder,
and writes one JSON record for each image.

Commands:
{_LINES}

Options:
  --version             Show the version.
  --install-completion  Let the Tab key complete vlmbatch
                        commands in this shell.
  --show-completion     Print the script for that.
  -h, --help            Show this help.

Type this next:
  vlmbatch run FOLDER    describe each image in FOLDER
  vlmbatch run --help    show all options of a run
"""


def command_line(args: list[str]) -> list[str]:
    """The command and its words, with `help run` written as `run --help`.

    Without a known command it prints the help, or what to type instead.

    Raises:
        SystemExit: a page was printed, and no command is to run.
    """
    if args[:1] == ["help"]:
        args = [*args[1:2], "--help"]
    if not args:
        sys.stderr.write(SHORT_PAGE)
        raise SystemExit(USAGE)
    if args[0] in HELP_FLAGS:
        sys.stdout.write(PAGE)
        raise SystemExit(0)
    if args[0] in COMMANDS or args[0] in OWN_FLAGS:
        return args
    from vlmbatch.cli.suggestions import unknown_command

    sys.stderr.write(f"vlmbatch: {unknown_command(args)}\n")
    raise SystemExit(USAGE)
