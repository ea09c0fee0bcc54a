"""Makes the page of all public names, docs/api.md, from the signatures and docstrings of the package.

griffe reads them from the source, so it also finds the docstrings of attributes.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import griffe

import vlmbatch

SHOWN = {
    "Batch": ("summary", "stop"),
    "Question": ("run", "settings"),
    "RunConfig": ("of_batch", "of_session"),
    "Session": ("question", "answer", "answer_many", "state"),
    "SyncSession": ("question", "answer", "answer_many", "state"),
}
"""The public members of the classes that also have internal members."""
LONGEST = 88  # characters of a signature in one line
CLASS = re.compile(r"\b[A-Z]\w*[a-z]\w*")  # the name of a class or of a type
QUOTES = "\"'"  # around an annotation that is a text
STARS = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}

Documented = griffe.Class | griffe.Function | griffe.Attribute


class PublicNames:
    """The public names of the package, each with the object that it names."""

    def __init__(self) -> None:
        self._package = griffe.load(
            "vlmbatch", search_paths=[str(Path(vlmbatch.__file__).parents[1])], docstring_parser="google"
        )
        self.errors = self._names("errors")
        self.events = self._names("events")
        own = {name: self._found(name) for name in vlmbatch.__all__}
        rest = {name: found for name, found in own.items() if name not in {*self.errors, *self.events}}
        self.functions = {name: found for name, found in rest.items() if found.is_function}
        self.classes = {name: found for name, found in rest.items() if found.is_class}
        self.types = self._types({**self.functions, **self.classes, **self.events})

    def _names(self, module: str) -> dict[str, Documented]:
        exported = self._package[module].exports or ()
        return {str(name): self._found(f"{module}.{name}") for name in exported}

    def _found(self, path: str) -> Documented:
        found = self._package[path]
        return found.final_target if found.is_alias else found

    def _types(self, begin: dict[str, Documented]) -> dict[str, Documented]:
        """The types of the package in the signatures and fields of these objects, and of those types."""
        known, new = {**begin, **self.errors}, dict(begin)
        while new:
            named = {name: each for found in new.values() for name, each in self._named_by(found)}
            new = {name: found for name, found in named.items() if name not in known}
            known |= new
        return {name: known[name] for name in sorted({*known} - {*begin, *self.errors})}

    def _named_by(self, found: Documented) -> Iterator[tuple[str, Documented]]:
        for each in (found, *members(found)):
            for name in CLASS.findall(type_text(each)):
                try:
                    path = each.resolve(name)
                except griffe.NameResolutionError:
                    continue
                if path.startswith("vlmbatch."):
                    named = self._found(path.removeprefix("vlmbatch."))
                    if not is_type_variable(named):
                        yield name, named


def members(found: Documented) -> list[Documented]:
    """The public members of a class, in the order of the source."""
    if not found.is_class:
        return []
    every = [each for name, each in found.members.items() if not name.startswith("_")]
    if found.name not in vlmbatch.__all__:  # only vlmbatch makes it, and its methods are for that
        return [each for each in every if each.is_attribute]
    shown = SHOWN.get(found.name)
    return every if shown is None else [each for each in every if each.name in shown]


def is_keywords(found: Documented) -> bool:
    """Whether this is a class of keywords, which docs/options.md explains."""
    return found.name.endswith("Keywords")


def is_type_variable(found: Documented) -> bool:
    """Whether this is a type variable, which the page shows by its name alone."""
    return found.is_attribute and str(found.value).startswith("TypeVar(")


def type_text(found: Documented) -> str:
    """The types in a declaration, as text: of an attribute, of a signature, or of an alias."""
    if found.is_function:
        return signature(found)
    if found.is_class:
        return ""
    annotation = str(found.annotation or "").strip(QUOTES)
    return annotation if annotation not in ("", "TypeAlias") else str(found.value).strip(QUOTES)


def signature(found: Documented) -> str:
    """The signature of a function as Python code, on several lines if it is long."""
    begin = f"{'async ' if 'async' in found.labels else ''}def {found.name}("
    end = f") -> {str(found.returns).strip(QUOTES)}"
    parts = list(_parameters(found))
    line = begin + ", ".join(parts) + end
    return line if len(line) <= LONGEST else "\n".join([begin, *(f"    {part}," for part in parts), end])


def _parameters(found: Documented) -> Iterator[str]:
    named_only = False
    for each in found.parameters:
        if each.name in ("self", "cls"):
            continue
        if each.kind is griffe.ParameterKind.keyword_only and not named_only:
            yield "*"
        named_only |= each.kind in (griffe.ParameterKind.keyword_only, griffe.ParameterKind.var_positional)
        stars = STARS.get(each.kind, "")
        default = "" if stars or each.default is None else f" = {_value(each.default, found)}"
        yield f"{stars}{each.name}: {str(each.annotation).strip(QUOTES)}{default}"


def _value(default: str | griffe.Expr, found: Documented) -> str:
    """The default as code; for the name of a constant, its value."""
    is_constant = isinstance(default, griffe.ExprName) and str(default).isupper()
    return str(found.module[str(default)].value if is_constant else default)


def text_of(found: Documented) -> str:
    """The docstring as Markdown."""
    if found.docstring is None:
        raise ValueError(f"{found.path} is public and has no docstring")
    parts = []
    for section in found.docstring.parsed:
        if section.kind is griffe.DocstringSectionKind.text:
            parts.append(markdown(section.value))
        elif section.kind is griffe.DocstringSectionKind.parameters:
            parts.append("\n".join(_item(each.name, each.description) for each in section.value))
        elif section.kind is griffe.DocstringSectionKind.raises:
            lines = (_item(str(each.annotation), each.description) for each in section.value)
            parts.append("\n".join(["It raises:", "", *lines]))
        else:
            raise ValueError(f"{found.path} has a section {section.kind}, which the page cannot show")
    return "\n\n".join(parts)


def _item(name: str, description: str) -> str:
    return f"- `{name}`: {markdown(description)}".replace("\n", "\n  ")


def markdown(text: str) -> str:
    """The text of a docstring as Markdown: code in single backticks, and an example as a block."""
    text = re.sub(r"(?s)``(.+?)``", r"`\1`", text)
    return re.sub(r"(?m)^::\n\n((?:    .*\n|\n(?=    ))+)", _example, text + "\n").strip()


def _example(match: re.Match[str]) -> str:
    lines = (line.removeprefix("    ") for line in match[1].splitlines())
    return "\n".join(["```python", *lines, "```", ""])


def reference() -> str:
    """The whole generated part of the page."""
    names = PublicNames()
    known = {*names.classes, *names.events, *names.types}
    return "\n\n".join(
        [
            "## Functions\n\nImport them from `vlmbatch`.",
            *(_function(found, "###") for found in names.functions.values()),
            "## Classes\n\nImport them from `vlmbatch`.",
            *(_class(found, known) for found in names.classes.values()),
            "## Events\n\nImport them from `vlmbatch.events`, and `Event` also from `vlmbatch`.",
            *(_class(found, known) for found in names.events.values()),
            f"## Errors\n\nImport them from `vlmbatch.errors`. In `vlmbatch` are also {_shared(names)}.",
            _errors(names),
            "## Types\n\nSignatures and fields have these types. Their modules are private.",
            *(_class(found, known) for found in names.types.values()),
        ]
    )


def _shared(names: PublicNames) -> str:
    return ", ".join(f"`{name}`" for name in names.errors if name in vlmbatch.__all__)


def _function(found: Documented, rank: str) -> str:
    owner = f"{found.parent.name}." if found.parent is not None and found.parent.is_class else ""
    return f"{rank} `{owner}{found.name}`\n\n```python\n{signature(found)}\n```\n\n{text_of(found)}"


def _class(found: Documented, known: set[str]) -> str:
    heading, source = f"### `{found.name}`", f"```python\n{found.source}\n```"
    if is_keywords(found):
        text = "[options.md](options.md#all-options) explains each of these keywords."
        return "\n\n".join([heading, text, source])
    if found.is_attribute:
        return "\n\n".join([heading, text_of(found), source])
    fields = [each for each in members(found) if each.is_attribute]
    methods = [each for each in members(found) if each.is_function]
    return "\n\n".join(
        [heading, text_of(found), *_fields(fields, known), *(_function(each, "####") for each in methods)]
    )


def _fields(fields: list[Documented], known: set[str]) -> Iterator[str]:
    """A table of the fields and properties, if there are any."""
    rows = [(f"`{each.name}`", _linked(type_text(each), known), _meaning(each)) for each in fields]
    columns = 3 if any(row[2] for row in rows) else 2
    if rows:
        lines = [("name", "type", "meaning"), ("---",) * 3, *rows]
        yield "\n".join(f"| {' | '.join(line[:columns])} |" for line in lines)


def _meaning(found: Documented) -> str:
    return "" if found.docstring is None else " ".join(text_of(found).split()).replace("|", "\\|")


def _linked(text: str, known: set[str]) -> str:
    """The type as code, with a link to the first class of this page in it."""
    code = f"`{text}`".replace("|", "\\|")
    name = next((name for name in CLASS.findall(text) if name in known), None)
    return code if name is None else f"[{code}](#{name.lower()})"


def _errors(names: PublicNames) -> str:
    lines = ["| name | base class | meaning |", "|---|---|---|"]
    for name, found in names.errors.items():
        base = ", ".join(f"`{each}`" for each in found.bases)
        lines.append(f"| `{name}` | {base} | {_meaning(found)} |")
    return "\n".join(lines)
