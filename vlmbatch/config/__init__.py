"""RunConfig holds every option of a run; options() lists them."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self

from vlmbatch.config.endpoint import EndpointOptions
from vlmbatch.config.groups import GenerationOptions, ImageOptions, InputOptions, PromptOptions
from vlmbatch.config.request import RequestOptions
from vlmbatch.config.run import DisplayOptions, OutputOptions, RunOptions
from vlmbatch.config.spec import OptionSpec, Section, flag, nearest, require, typed
from vlmbatch.errors import ConfigError

EXCLUSIVE = (
    ("prompt", "prompt_file"),
    ("quiet", "verbose"),
    ("overwrite", "append"),
    ("ca_cert", "insecure"),
)
"""Pairs of options that exclude each other."""
SESSION_GROUPS = ("prompt", "endpoint", "request", "generation", "image")
SESSION_OPTIONS = frozenset(
    (
        *("concurrency", "rpm", "timeout", "retries", "give_up_after", "drain", "decode_memory"),
        *("max_bytes", "dedupe", "cache", "prices"),
    )
)
"""The groups of options that a session has, and its options of other groups."""
SECTIONS: Mapping[str, Section] = {
    "input": "Images",
    "prompt": "Question and answer",
    "endpoint": "Endpoint",
    "request": "Endpoint",
    "generation": "Question and answer",
    "image": "Images",
    "output": "Output",
    "run": "Speed and limits",
    "display": "Display and reports",
}
"""For each group of options the heading in the help, unless an option declares its own."""
QUESTION_GROUPS = ("prompt", "generation", "image")
"""The groups of options that one question of a session may set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """All options of a run. `paths` are folders, files, or `-` for a list on standard input."""

    paths: tuple[str, ...]
    input: InputOptions = field(default_factory=InputOptions)
    prompt: PromptOptions = field(default_factory=PromptOptions)
    endpoint: EndpointOptions = field(default_factory=EndpointOptions)
    request: RequestOptions = field(default_factory=RequestOptions)
    generation: GenerationOptions = field(default_factory=GenerationOptions)
    image: ImageOptions = field(default_factory=ImageOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    run: RunOptions = field(default_factory=RunOptions)
    display: DisplayOptions = field(default_factory=DisplayOptions)

    def __post_init__(self) -> None:
        require(bool(self.paths), "no PATH is given; name a folder of images, or - to read a list of paths")
        to_file = self.output.output != "-"
        for name in ("retry_failed", "overwrite", "append"):
            require(
                to_file or not getattr(self.output, name),
                f"{flag(name)} needs an output file; add --output FILE",
            )

    @classmethod
    def of(cls, *paths: str, **options: object) -> Self:
        """Make a config from the names of options: ``RunConfig.of("photos", model="llava:7b")``.

        Raises:
            ConfigError: a name is unknown (the message suggests the nearest one), or a value is out of range.
        """
        given = typed_options(options)
        groups = {
            group.name: group.type(  # type: ignore[operator]  # each is a dataclass type
                **{f.name: given[f.name] for f in fields(group.type) if f.name in given}  # type: ignore[arg-type]
            )
            for group in _groups(cls)
        }
        return cls(paths=paths, **groups)

    @classmethod
    def of_session(cls, **given: object) -> Self:
        """A config for a session, which walks no paths, writes no records and has no limit.

        Raises:
            ConfigError: an unknown name, a value that is out of range, or an option of a run.
        """
        for option in options():
            belongs = option.group in SESSION_GROUPS or option.name in SESSION_OPTIONS
            if option.name in given and not belongs:
                raise ConfigError(f"{option.name} is an option of a run, not of a session; leave it out")
        return cls.of("-", **given)

    def for_question(self, **given: object) -> Self:
        """This config of a session, with the options of one question.

        Raises:
            ConfigError: an unknown name, a value that is out of range, or an option of the session.
        """
        values = typed_options(given)
        groups = {option.name: option.group for option in options()}
        for name in values:
            if groups[name] not in QUESTION_GROUPS:
                raise ConfigError(f"{name} is an option of the session; give it to open_session()")
        if "prompt" in values or "prompt_file" in values:  # one takes the place of the other
            values = {"prompt": None, "prompt_file": None} | values
        changed = {
            group: dataclasses.replace(
                getattr(self, group), **{n: v for n, v in values.items() if groups[n] == group}
            )
            for group in QUESTION_GROUPS
        }
        return dataclasses.replace(self, **changed)


def _groups(config: type[RunConfig] = RunConfig) -> Iterator["dataclasses.Field[Any]"]:
    return (f for f in fields(config) if dataclasses.is_dataclass(f.type))


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option as its field declares it: flat `name`, Python type, default and OptionSpec."""

    name: str
    type: Any
    default: Any
    group: str
    spec: OptionSpec

    @property
    def flag(self) -> str:
        """The long flag."""
        return flag(self.name)

    @property
    def section(self) -> Section:
        """The heading in the help."""
        return self.spec.section or SECTIONS[self.group]

    @property
    def env(self) -> str:
        """The name of the environment variable."""
        return f"VLMBATCH_{self.name.upper()}"

    @property
    def key(self) -> str:
        """The key in vlmbatch.toml."""
        return self.name.replace("_", "-")


def options() -> Iterator[Option]:
    """Yield all options, group by group, in the order of their declaration."""
    for group in _groups():
        for f in fields(group.type):  # type: ignore[arg-type]  # a dataclass, as above
            default = None if f.default is MISSING else f.default
            yield Option(
                name=f.name, type=f.type, default=default, group=group.name, spec=f.metadata["option"]
            )


def typed_options(given: Mapping[str, object]) -> dict[str, object]:
    """Convert each value to the type of its field.

    Raises:
        ConfigError: a name is not an option (the message suggests the nearest one), or a value has another
            type.
    """
    known = {o.name: o for o in options()}
    for name in given:
        if name not in known:
            raise ConfigError(f"option {name!r} is not known{nearest(name, known)}")
    return {name: typed(name, known[name].type, known[name].spec, value) for name, value in given.items()}
