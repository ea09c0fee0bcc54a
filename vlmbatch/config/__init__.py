"""RunConfig holds every option of a run and of the service; options() lists them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self, Unpack

from vlmbatch.config.answer_class import AnswerClass, Schema, split_schema
from vlmbatch.config.endpoint import EndpointOptions
from vlmbatch.config.groups import GenerationOptions, ImageOptions, InputOptions, PromptOptions
from vlmbatch.config.job_queue import QueueOptions
from vlmbatch.config.keywords import (
    BatchKeywords,
    QuestionKeywords,
    RunKeywords,
    ServiceKeywords,
    SessionKeywords,
)
from vlmbatch.config.request import RequestOptions
from vlmbatch.config.run import DisplayOptions, OutputOptions, RunOptions
from vlmbatch.config.service import ServiceOptions
from vlmbatch.config.spec import OptionSpec, Section, flag, nearest, require, typed
from vlmbatch.errors import ConfigError

EXCLUSIVE = (
    ("prompt", "prompt_file"),
    ("quiet", "verbose"),
    ("overwrite", "append"),
    ("ca_cert", "insecure"),
)
"""Pairs of options that exclude each other."""
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
    "service": "Service",
    "jobs": "Queue",
}
"""For each group of options the heading in the help, unless an option declares its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """All options of runs, service and queue. `paths` are folders, files, or `-` for standard input."""

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
    service: ServiceOptions = field(default_factory=ServiceOptions)
    jobs: QueueOptions = field(default_factory=QueueOptions)
    answer_class: type[AnswerClass] | None = None
    """The pydantic class of parsed answers, if the schema is that of a class; only Python can set it."""

    def __post_init__(self) -> None:
        to_file = self.output.output != "-"
        for name in ("retry_failed", "overwrite", "append"):
            require(
                to_file or not getattr(self.output, name),
                f"{flag(name)} needs an output file; add --output FILE",
            )

    @classmethod
    def of(cls, *paths: str, **options: Unpack[RunKeywords]) -> Self:
        """Make a config from the names of options: ``RunConfig.of("photos", model="llava:7b")``.

        Raises:
            ConfigError: a name is unknown (the message suggests the nearest one), or a value is out of range.
        """
        return cls._of(paths, options)

    @classmethod
    def of_batch(cls, *paths: str, schema: Schema | None = None, **options: Unpack[BatchKeywords]) -> Self:
        """A config for a run in Python, which shows nothing and has no exit code.

        Raises:
            ConfigError: an unknown name, a value that is out of range, or an option of the command alone.
        """
        if (name := _misplaced(options, BatchKeywords)) is not None:
            raise ConfigError(
                f"{name} is an option of the command or of the service, without effect here; leave it out"
            )
        return cls._of(paths, {"schema": schema, **options})

    @classmethod
    def of_session(cls, *, schema: Schema | None = None, **options: Unpack[SessionKeywords]) -> Self:
        """A config for a session, which searches no folders, writes no records and has no limit.

        Raises:
            ConfigError: an unknown name, a value that is out of range, or an option of a run.
        """
        if (name := _misplaced(options, SessionKeywords)) is not None:
            raise ConfigError(
                f"{name} is an option of a run or of the service, not of a session; leave it out"
            )
        return cls._of(("-",), {"schema": schema, **options})

    @classmethod
    def of_service(cls, *, schema: Schema | None = None, **options: Unpack[ServiceKeywords]) -> Self:
        """A config for the service, which has the options of a session and its own.

        Raises:
            ConfigError: an unknown name, a value that is out of range, or an option of a run.
        """
        if (name := _misplaced(options, ServiceKeywords)) is not None:
            raise ConfigError(f"{name} is an option of a run, not of the service; leave it out")
        return cls._of(("-",), {"schema": schema, **options})

    def for_question(self, *, schema: Schema | None = None, **options: Unpack[QuestionKeywords]) -> Self:
        """This config of a session, with the options of one question.

        Raises:
            ConfigError: an unknown name, a value that is out of range, or an option of the session.
        """
        if (name := _misplaced(options, QuestionKeywords)) is not None:
            raise ConfigError(f"{name} is an option of the session; give it to open_session()")
        values = typed_options(options)
        if "prompt" in values or "prompt_file" in values:  # one takes the place of the other
            values = {"prompt": None, "prompt_file": None} | values
        config = self if schema is None else self.with_schema(schema)
        groups = {
            group.name: dataclasses.replace(getattr(config, group.name), **_of_group(group, values))
            for group in _groups()
        }
        return dataclasses.replace(config, **groups)

    def with_schema(self, schema: Schema) -> Self:
        """This config with another schema; raises ConfigError as split_schema() does."""
        schema_option, answer_class = split_schema(schema)
        generation = dataclasses.replace(self.generation, **typed_options({"schema": schema_option}))  # type: ignore[arg-type]
        return dataclasses.replace(self, generation=generation, answer_class=answer_class)

    @classmethod
    def _of(cls, paths: tuple[str, ...], options: Mapping[str, object]) -> Self:
        schema, answer_class = split_schema(options.get("schema"))
        given = typed_options({**options, "schema": schema})
        groups: dict[str, Any] = {
            group.name: group.type(**_of_group(group, given))  # type: ignore[operator]  # each is a dataclass type
            for group in _groups(cls)
        }
        return cls(paths=paths, answer_class=answer_class, **groups)


def _groups(config: type[RunConfig] = RunConfig) -> Iterator["dataclasses.Field[Any]"]:
    return (f for f in fields(config) if dataclasses.is_dataclass(f.type))


def _of_group(group: "dataclasses.Field[Any]", given: Mapping[str, object]) -> dict[str, Any]:
    """The options that belong to this group."""
    return {f.name: given[f.name] for f in fields(group.type) if f.name in given}  # type: ignore[arg-type]


def _misplaced(options: Mapping[str, object], keywords: Any) -> str | None:
    """The first option of other callers that is not among these keywords; None if there is none."""
    everywhere = RunKeywords.__optional_keys__ | ServiceKeywords.__optional_keys__
    elsewhere = everywhere - keywords.__optional_keys__
    return next((name for name in options if name in elsewhere), None)


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


def given_config(
    config: object, make: Callable[..., RunConfig], schema: Schema | None, options: Mapping[str, Any]
) -> RunConfig:
    """The config that a caller gives, with its `schema`; without one, `make` makes it of the options.

    Raises:
        TypeError: it is no RunConfig, or there are options, too.
        ConfigError: the options or the schema cannot be used.
    """
    if config is None:
        return make(schema=schema, **options)
    if not isinstance(config, RunConfig):
        kind = type(config).__name__
        raise TypeError(f"config takes a RunConfig, not {kind}; write RunConfig.{make.__name__}(...)")
    if options:
        raise TypeError("give either a config or options")
    return config if schema is None else config.with_schema(schema)
