"""Collects the texts of the program that a user may read, and writes them to messages.txt next to this file.

A text is any string of two words or more in the code, except docstrings, help texts, patterns and SQL. So
every message is in the list, in whatever way it reaches the user.

Refresh the list: python tests/messages/collector.py
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vlmbatch"
LISTED = Path(__file__).with_name("messages.txt")

PROSE = re.compile(r"[\w}'\"):;,] ['\"({]?\w")
CODE = re.compile(
    r"\\[wWbsSd.*(){/]|\(\?|\.[*{]|\w\|\w|\w\[\w"
    r"|^(SELECT|INSERT|CREATE|DELETE|PRAGMA|TABLE) |^[A-Z0-9]+( [A-Z0-9]+){4}"
)
"""Patterns, types, SQL, and lists of endings of file names."""
HELP = frozenset(
    ("help", "description", "short_help", "epilog", "options_metavar", "panel", "rich_help_panel", "usage")
)
PATTERNS = frozenset(("compile", "search", "match", "fullmatch", "sub", "split", "findall", "finditer"))

SKIPPED = frozenset(("option", "filterwarnings", "RuntimeError", "AssertionError", "TypeVar", "cast"))
"""Calls whose texts are help, code, or errors of a programmer."""
NO_MESSAGES = frozenset(
    (
        "vlmbatch/sources/system_names.py",
        "vlmbatch/backends/classify/blindness.py",
        "vlmbatch/cli/front.py",  # the help of the program
    )
)
HELP_NAMES = frozenset(("EPILOG", "DESCRIPTION", "SECTIONS", "Section"))
"""Constants with texts of the help."""

Constants = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A text of a file. `kind` is the name of the call around it, such as ConfigError, or empty."""

    file: str
    kind: str
    text: str


def collected() -> list[Message]:
    """All messages, by file and in the order of their lines."""
    trees = {_file(path): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    named = {file: _constants(tree) for file, tree in trees.items()}
    found: list[Message] = []
    for file in sorted(trees.keys() - NO_MESSAGES):
        walk = _Walk(file, _imported(trees[file], named) | named[file])
        found += walk.messages(trees[file], "")
    return found


def as_list(messages: list[Message]) -> str:
    """The messages as the text of messages.txt."""
    by_file = defaultdict[str, list[str]](list)
    for message in messages:
        shown = message.text.replace("\n", "\\n")
        by_file[message.file].append(f"{message.kind or '-'} | {shown}")
    parts = (f"{file}\n" + "".join(f"  {line}\n" for line in lines) for file, lines in by_file.items())
    return "\n".join(parts)


def _file(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _imported(tree: ast.Module, named: Mapping[str, Constants]) -> dict[str, str]:
    """The texts with a name in capital letters that the file imports from other files."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            place = node.module.replace(".", "/")
            constants = {**named.get(f"{place}.py", {}), **named.get(f"{place}/__init__.py", {})}
            found |= {(a.asname or a.name): constants[a.name] for a in node.names if a.name in constants}
    return found


def _constants(tree: ast.Module) -> dict[str, str]:
    """The texts that the file gives a name in capital letters."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            text = _text(node.value, {})
            if text is not None and node.targets[0].id.isupper():
                found[node.targets[0].id] = text
    return found


def _text(node: ast.AST, constants: Constants) -> str | None:
    """The text of this expression, with {expression} for each value in it; None if it is no text."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_text(value, constants) or "" for value in values)
        case ast.Name(id=name) | ast.FormattedValue(value=ast.Name(id=name)) if name in constants:
            return constants[name]
        case ast.FormattedValue(value=value):
            return "{" + _shown(value) + "}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            texts = [_text(side, constants) for side in (left, right)]
            if texts == [None, None]:
                return None
            sides = zip((left, right), texts, strict=True)
            return "".join(f"{{{_shown(side)}}}" if text is None else text for side, text in sides)
    return None


def _shown(node: ast.AST) -> str:
    """An expression in short, and equal for each version of Python, which ast.unparse is not."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{_shown(value)}.{name}"
        case ast.Call(func=func, args=args):
            return f"{_shown(func)}({', '.join(map(_shown, args))})"
        case ast.Constant(value=value):
            return repr(value)
    return "…"


class _Walk:
    """Finds the messages of one file."""

    def __init__(self, file: str, constants: Constants) -> None:
        self._file = file
        self._constants = constants

    def messages(self, node: ast.AST, kind: str) -> Iterator[Message]:
        """The messages in this part of the file; `kind` is the name of the call around it."""
        text = None if isinstance(node, ast.Name) else _text(node, self._constants)
        if text is not None:
            if PROSE.search(text) and not CODE.search(text):
                yield Message(file=self._file, kind=kind, text=text)
            for value in _values(node):
                yield from self.messages(value, kind)
            return
        match node:
            case ast.Expr(value=ast.Constant()) | ast.Assert():  # a docstring, a bug
                return
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if (
                name in HELP_NAMES
            ):
                return
            case ast.Call(func=func):
                kind = func.attr if isinstance(func, ast.Attribute) else ast.unparse(func)
                if kind in PATTERNS or kind in SKIPPED:
                    return
        children = _undescribed(node) if isinstance(node, ast.Dict) else ast.iter_child_nodes(node)
        for child in children:
            if not (_is_help(child) or _is_pattern(node, child)):
                yield from self.messages(child, kind)


def _undescribed(node: ast.Dict) -> Iterator[ast.AST]:
    """The keys and values of a dict, but no description for /openapi.json."""
    for key, value in zip(node.keys, node.values, strict=True):
        if not (isinstance(key, ast.Constant) and key.value in HELP):
            yield from (value,) if key is None else (key, value)


def _values(node: ast.AST) -> list[ast.expr]:
    """The expressions in a text, which may have texts in them."""
    match node:
        case ast.JoinedStr(values=values):
            return [each.value for each in values if isinstance(each, ast.FormattedValue)]
        case ast.BinOp(left=left, right=right):
            return [*_values(left), *_values(right)]
    return []


def _is_help(node: ast.AST) -> bool:
    return isinstance(node, ast.keyword) and node.arg in HELP


def _is_pattern(parent: ast.AST, node: ast.AST) -> bool:
    """Whether this is the name or the pattern of a row of the tables of replies."""
    is_row = isinstance(parent, ast.Call) and ast.unparse(parent.func) == "Row"
    return is_row and node in parent.args[:2]


if __name__ == "__main__":
    LISTED.write_text(as_list(collected()), encoding="utf-8")
