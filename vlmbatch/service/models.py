"""The models of the service: for each one an open session, and the questions that clients ask it."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError, UnavailableError
from vlmbatch.jobs.questions import question_options
from vlmbatch.pipeline.question import Question
from vlmbatch.pipeline.session import Session, opened
from vlmbatch.prompts.checking import CHECKER
from vlmbatch.protocols import Observer
from vlmbatch.records import Endpoint
from vlmbatch.service.keys import ApiKey
from vlmbatch.service.problems import Problem

PATIENCE_S = 15.0
"""How long a request waits for an endpoint that is down, unless --give-up-after is set."""
MOST_AT_ONCE = 16
"""One batch has at most this many pictures in work, so that others get answers, too."""
MOST_QUESTIONS = 256
"""The questions that are remembered for each model."""
LONGEST_SCHEMA = 100_000
"""Characters of a JSON Schema; the remembered questions have theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a client asks, and with which options; None means the option of the service.

    `schema` is the text of a JSON Schema. `max_size` is in pixels, `quality` from 1 to 100.
    """

    prompt: str | None
    system: str | None = None
    schema: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    max_size: int | None = None
    quality: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of the question that differ from those of the service."""
        names = (name for name in self.__slots__ if name != "schema")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class ServedModel:
    """A session, and the questions that clients have asked it."""

    def __init__(self, session: Session, name: str | None) -> None:
        """`name` is that of the options; None: the only vision model of the endpoint."""
        self.session = session
        self._name = name
        self._questions: OrderedDict[tuple[Asked, Endpoint], Question] = OrderedDict()

    @property
    def name(self) -> str | None:
        """The name of the model; None while no endpoint has been up, and no option names it."""
        if self._name is not None:
            return self._name
        try:
            return self.session.endpoint.model
        except UnavailableError:
            return None

    @property
    def slots(self) -> int:
        """How many images can be on their way at once."""
        return self.session.most_at_once

    async def question(self, asked: Asked, scope: str) -> Question:
        """The question that a client asks; answers are shared only with questions of the same `scope`.

        Raises:
            Problem: an option cannot be used, or the model is not known yet.
        """
        _check_length(asked.schema)
        try:
            place = (asked, self.session.endpoint)
            question = self._questions.get(place)
            if question is None:
                question = await self._made(asked, scope)
                self._questions[place] = question
                if len(self._questions) > MOST_QUESTIONS:
                    self._questions.popitem(last=False)
        except ConfigError as error:
            raise Problem("bad_option", without_flags(str(error))) from error
        except UnavailableError as error:
            raise Problem("down", str(error)) from error
        self._questions.move_to_end(place)
        return question.within(scope)

    async def options(self, asked: Asked, scope: str) -> dict[str, Any]:
        """The options of the question of a job: those of the service, with those that the client gives.

        The model need not be known. Clients with the same `scope` take one turn; see question_within().

        Raises:
            Problem: an option cannot be used.
        """
        _check_length(asked.schema)
        schema = None if asked.schema is None else json.loads(asked.schema)
        try:
            config = self.session.config.for_question(schema=schema, **asked.options)
            work = partial(question_options, config)
            if config.generation.schema is None:
                return await asyncio.to_thread(work)
            return await CHECKER.turns.call(scope, work)
        except ConfigError as error:
            raise Problem("bad_option", without_flags(str(error))) from error

    async def _made(self, asked: Asked, scope: str) -> Question:
        if asked.schema is None:
            return self.session.question(**asked.options)
        return await self.session.question_within(scope, schema=json.loads(asked.schema), **asked.options)


class Models:
    """The models that requests may name; the first one answers requests that name none."""

    def __init__(self, served: Iterable[ServedModel]) -> None:
        """Use Models.opened()."""
        self.served = tuple(served)

    @classmethod
    @asynccontextmanager
    async def opened(cls, config: RunConfig, notify: Observer) -> AsyncIterator[Self]:
        """The models at work inside the ``async with``.

        Raises:
            VlmbatchError: the options are wrong, or an endpoint refuses them.
        """
        patient = replace(config.run, give_up_after=config.run.patience_s(PATIENCE_S))
        most = config.service.max_requests * MOST_AT_ONCE
        names = dict.fromkeys((config.endpoint.model, *config.service.allow_model))
        async with AsyncExitStack() as stack:
            served = []
            for name in names:
                own = replace(config, run=patient, endpoint=replace(config.endpoint, model=name))
                opening = opened(own, notify, wait=False, max_waiting=most)
                served.append(ServedModel(await stack.enter_async_context(opening), name))
            yield cls(served)

    @property
    def default(self) -> ServedModel:
        """The model that answers requests without a model."""
        return self.served[0]

    def names(self, key: ApiKey | None) -> list[str]:
        """The models that this API key may name."""
        known = (served.name for served in self.served)
        return [name for name in known if name is not None and _may_use(key, name)]

    def named(self, name: str | None, key: ApiKey | None) -> ServedModel:
        """The model with this name, or the first one that the API key may use.

        Raises:
            Problem: the service has no such model, or the API key may not use it.
        """
        if name is None:
            allowed = (each for each in self.served if each.name is None or _may_use(key, each.name))
            found = next(allowed, None)
        else:
            found = next((each for each in self.served if each.name == name and _may_use(key, name)), None)
        if found is None:
            raise Problem("not_found", self._not_found(name, key))
        return found

    def _not_found(self, name: str | None, key: ApiKey | None) -> str:
        known = ", ".join(self.names(key))
        if name is None or not known:
            return "this request can use no model of the service; ask the operator of the service for one"
        return f"this request cannot use the model {name[:100]!r}; name one of these: {known}"


def _check_length(schema: str | None) -> None:
    if schema is not None and len(schema) > LONGEST_SCHEMA:
        raise Problem(
            "bad_option", f"schema has more than {LONGEST_SCHEMA:,} characters; write a shorter one"
        )


def _may_use(key: ApiKey | None, name: str) -> bool:
    return key is None or not key.models or name in key.models


def without_flags(message: str) -> str:
    """A message about an option, with the name that a request has for it: max_size for --max-size."""
    words = message.split(" ")
    return " ".join(word[2:].replace("-", "_") if word.startswith("--") else word for word in words)


def states(models: Models) -> Mapping[str, Any]:
    """For each model whether it is up, and the reason why not."""
    return {served.name or "(unknown)": reason(served) or "up" for served in models.served}


def reason(served: ServedModel) -> str | None:
    """Why the model takes no requests; None if it does."""
    state = served.session.state
    if state.up:
        return None
    reasons = (f"{each.url}: {each.reason}" for each in state.endpoints)
    return "; ".join(reasons) or "there is no endpoint"
