"""The question that a session asks about images: prompt, system, schema, generation and image options."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, Self

from vlmbatch.config import RunConfig
from vlmbatch.config.groups import USUAL_SIDE, ImageOptions
from vlmbatch.config.spec import AUTO
from vlmbatch.events import tell
from vlmbatch.imaging.sizing import Sizing, sizing_of
from vlmbatch.pipeline.fingerprint import answer_settings, request_of, run_digest, with_known_digest
from vlmbatch.prompts import prompt_text
from vlmbatch.prompts.checking import CHECKER
from vlmbatch.prompts.schemas import AnswerSchema, schema_text
from vlmbatch.protocols import Observer
from vlmbatch.records import DEFAULT_PROMPT_NAME, Completion, Endpoint, M, Request


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question(Generic[M]):
    """Prompt, schema and options of a request, without its images: session.question() makes it.

    It never changes, and many images share it.
    `run` is the fingerprint: a digest of `settings`, which are all settings that change an answer. They name
    the model of `endpoint`. `name` is the prompt's name in records.
    """

    request: Request
    image: ImageOptions
    sizing: Sizing
    answer_schema: AnswerSchema | None
    endpoint: Endpoint
    settings: Mapping[str, Any]
    run: str
    name: str = DEFAULT_PROMPT_NAME
    scope: str = ""
    """See within(). A question of a run has none."""

    @classmethod
    def of(cls, config: RunConfig, endpoint: Endpoint, prompt: str, schema: str | None) -> Self:
        """The question of these options for this endpoint; `schema` is a text from schemas.schema_text().

        Raises:
            ConfigError: --image-tokens is set, and how this model counts image tokens is unknown.
        """
        settings = answer_settings(config, endpoint, prompt, schema)
        return cls(
            request=request_of(config, prompt, schema),
            image=config.image,
            sizing=sizing_of(config.image, endpoint.model, endpoint.architecture),
            answer_schema=None if schema is None else AnswerSchema(schema, config.answer_class),
            endpoint=endpoint,
            settings=settings,
            run=run_digest(settings),
        )

    @classmethod
    def asked(cls, config: RunConfig, endpoint: Endpoint) -> Self:
        """The same; reads the files of these options and checks their schema, so it blocks.

        Raises:
            ConfigError: see of(); or a file cannot be read, or the schema cannot be used.
        """
        schema = schema_text(config.generation.schema, config.answer_class)
        return cls.of(config, endpoint, prompt_text(config.prompt), schema)

    def __repr__(self) -> str:
        """One line: the prompt, the model and the fingerprint."""
        shown = f"prompt={self.request.prompt!r:.60}, model={self.endpoint.model!r}, run={self.run!r}"
        return f"Question({shown})"

    def continuing(self, earlier: Mapping[str, Mapping[str, Any]]) -> Self:
        """This question, named as an earlier run that differs only by an unknown model digest."""
        settings = with_known_digest(dict(self.settings), earlier)
        return replace(self, settings=settings, run=run_digest(settings))

    def within(self, scope: str) -> Self:
        """This question, whose answers are reused only for questions of the same scope.

        A service gives each of its clients a scope, so that no client gets an answer that another one caused.
        Records and the fingerprint do not have the scope.
        """
        return replace(self, scope=scope)

    async def read(self, completion: Completion) -> Completion:
        """The completion, with its answer parsed if the question has a schema.

        This happens in a thread, since the validators of a pydantic class may block. Scopes take turns.

        Raises:
            BadAnswerError: the answer is not JSON, or does not match the schema or the pydantic class.
            AnswerClassError: that class raised another exception.
        """
        if self.answer_schema is None:
            return completion
        return await CHECKER.turns.call(self.scope, partial(self.answer_schema.read, completion))


def report_sizing(question: Question, notify: Observer) -> None:
    """Report if the model's picture sizes are unknown, or cost more than --image-tokens."""
    model, options = question.endpoint.model, question.image
    budget, least = options.image_tokens, question.sizing.least_tokens
    if options.max_size == AUTO and question.sizing.family is None:
        tell(
            notify,
            f"vlmbatch does not know how {model} counts image tokens, so --max-size auto is {USUAL_SIDE}; "
            "set --max-size to change that (docs/image-tokens.md)",
        )
    if budget is not None and least > budget:
        tell(
            notify,
            f"a photo costs {model} at least {least} tokens, more than --image-tokens {budget}; "
            "set a larger --image-tokens",
        )
