"""Applies every regular expression of vlmbatch to long texts; run by test_patterns.py in its own process.

    python tests/matching.py [PATTERN OF NAMES]

A pattern that tries the same text again and again takes minutes for one of these texts, and all others
milliseconds. The kernel ends the process in the midst of such a pattern, whose name is the last line printed.
"""

import ast
import importlib
import pkgutil
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vlmbatch

parser, constants = re._parser, re._constants  # type: ignore[attr-defined]
_CHARACTERS = (constants.LITERAL, constants.RANGE)

LENGTH = 50_000
PROCESSOR_S = 2.0
"""For one pattern and one text; the slowest pattern takes a tenth of a second on a slow machine."""
METHODS = ("search", "match", "fullmatch", "findall", "finditer", "split", "sub", "subn")
UNITS = (*' \na0[<"\x1b.-_,', "a ", "0.", "a_")
MOST_SAMPLES = 8
MADE = {
    "imaging/tokens/names.py": r"\A([a-z0-9-]+[._])?qwen2(?![a-z0-9]|[._]\d)",
    "backends/classify/refusals.py": r"(?<![a-z])max[_\- ]?tokens(?![a-z])",
    "backends/classify/thoughts.py": "<think>|(</think>)",
    "backends/llama_cpp/gguf.py": r"model\d{5}-of-00002\.gguf",
}
"""Files that make patterns of other texts, with an example of one."""


class Found:
    """A pattern with the method that is called on it."""

    def __init__(self, name: str, pattern: "re.Pattern[Any]", method: str) -> None:
        self.name, self.pattern, self.method = name, pattern, method

    def apply(self, text: str) -> None:
        """Look for the pattern in all of the text."""
        given = text.encode("latin-1", "replace") if isinstance(self.pattern.pattern, bytes) else text
        if self.method in ("match", "fullmatch", "search"):
            getattr(self.pattern, self.method)(given)
        else:
            for _ in self.pattern.finditer(given):
                pass


def patterns() -> Iterator[Found]:
    """All patterns: compiled in modules and classes, in tables, and in the text of calls."""
    root = Path(vlmbatch.__file__).parent
    for info in pkgutil.walk_packages([str(root)], "vlmbatch."):
        if info.name.endswith(("__main__", "answer_checker")):
            continue
        module = importlib.import_module(info.name)
        file = Path(str(module.__file__))
        source = file.read_text()
        place = file.relative_to(root).as_posix()
        for name, value in vars(module).items():
            called = re.findall(rf"\b{name}\.({'|'.join(METHODS)})\(", source) or ["search"]
            for n, pattern in enumerate(_compiled(value)):
                yield Found(f"{place}:{name}:{n}", pattern, "search" if "search" in called else called[0])
        yield from _literal(place, source)


def _compiled(value: object) -> Iterator["re.Pattern[Any]"]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _compiled(each)
    elif isinstance(value, dict):
        yield from _compiled(list(value.values()))
    else:
        for name in ("pattern", "names", "near"):
            text = getattr(value, name, None)
            if not isinstance(value, type) and isinstance(text, str):
                yield re.compile(text, re.IGNORECASE)


def _literal(place: str, source: str) -> Iterator[Found]:
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):
            continue
        if node.func.attr in METHODS and isinstance(node.args[0], ast.Constant):
            flags = re.IGNORECASE if "IGNORECASE" in ast.unparse(node) else re.RegexFlag(0)
            yield Found(f"{place}:{node.lineno}", re.compile(node.args[0].value, flags), node.func.attr)
    if place in MADE:
        yield Found(f"{place}:made", re.compile(MADE[place]), "search")


def _samples(parsed: Any) -> list[str]:
    """Short texts that match the parts of a parsed pattern one after the other, one for each alternative."""
    samples = [""]
    for operation, value in parsed:
        samples = [sample + part for sample in samples for part in _parts(str(operation), value)]
        samples = samples[:MOST_SAMPLES]
    return samples


def _parts(operation: str, value: Any) -> list[str]:
    if operation == "LITERAL":
        return [chr(value)]
    if operation == "IN":
        kind, first = value[0]
        return [chr(first if kind is constants.LITERAL else first[0])] if kind in _CHARACTERS else ["a"]
    if operation == "BRANCH":
        return [sample for each in value[1] for sample in _samples(each)]
    if operation in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        return [sample * max(1, value[0]) for sample in _samples(value[2])]
    if operation in ("SUBPATTERN", "ATOMIC_GROUP"):
        return _samples(value[-1] if operation == "SUBPATTERN" else value)
    return ["a"] if operation in ("ANY", "NOT_LITERAL") else [""]


def texts(pattern: "str | bytes") -> Iterator[str]:
    """Long texts that repeat what the pattern matches, or a part of it, and end with something else."""
    samples = _samples(parser.parse(pattern))
    parts = [sample[:end] for sample in samples for end in (None, -1, -2, -3, len(sample) // 2)]
    units = dict.fromkeys((*UNITS, *parts))
    for unit in filter(None, units):
        yield unit * (LENGTH // len(unit)) + "\u2603"
    for sample in samples[:5]:
        yield sample[:-1] + " " * LENGTH + "\u2603"


def main() -> None:
    """Apply each pattern to its texts."""
    for found in patterns():
        if len(sys.argv) > 1 and re.match(sys.argv[1], found.name) is None:
            continue
        for text in texts(found.pattern.pattern):
            sys.stdout.write(f"{found.name} {found.method} {text[:30]!r} ... {text[-5:]!r}\n")
            sys.stdout.flush()
            signal.setitimer(signal.ITIMER_PROF, PROCESSOR_S)  # nothing in Python can interrupt a match
            found.apply(text)
            signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main()
