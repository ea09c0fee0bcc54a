"""Makes the Question of each job, with the fingerprint of its batch. Jobs with equal options share it."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vlmbatch.config.groups import is_schema_itself
from vlmbatch.config.keywords import QuestionKeywords
from vlmbatch.config.masking import without_secrets
from vlmbatch.errors import ConfigError
from vlmbatch.jobs.claims import Claims
from vlmbatch.jobs.job import ImageJob
from vlmbatch.pipeline.question import Question
from vlmbatch.pipeline.session import Session
from vlmbatch.records import Endpoint

MOST = 256
"""The most questions, and the most fingerprints of batches, that are kept in memory."""
NAMED_S = 30.0
"""How long, in seconds, the fingerprint of a batch is kept: another program may start the batch again."""
ALLOWED = (QuestionKeywords.__optional_keys__ | {"schema"}) - {"prompt_file"}
"""The options that a job may have; none of them reads a file of the worker."""


class QuestionCache:
    """The questions of jobs at one session."""

    def __init__(
        self, session: Session, claims: Claims, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._session = session
        self._claims = claims
        self._clock = clock
        self._made: OrderedDict[tuple[str, str, Endpoint], Question] = OrderedDict()
        self._named: dict[tuple[str, str], tuple[float, str, Mapping[str, Any]]] = {}

    async def of(self, job: ImageJob) -> Question:
        """The question of this job.

        Raises:
            ConfigError: an option cannot be used, or Redis does not have the question.
            UnavailableError: the model is not known, since no endpoint has been up.
            QueueAwayError: Redis cannot be reached.
        """
        place = (job.question, job.scope, self._session.endpoint)
        question = self._made.get(place)
        if question is None:
            options = await asyncio.to_thread(self._claims.question, job.question)
            question = await self._session.question_within(job.scope, **_allowed(options))
            self._made[place] = question
            if len(self._made) > MOST:
                self._made.popitem(last=False)
        self._made.move_to_end(place)
        return question if not job.batch else await self._as_in_batch(question, job)

    async def _as_in_batch(self, question: Question, job: ImageJob) -> Question:
        """The question with the fingerprint that the first worker gave the batch.

        Another worker may have other weights of the same model, as endpoints of one run may.
        """
        place = (job.batch, job.question)
        known = self._named.get(place)
        if known is None or self._clock() - known[0] > NAMED_S:
            own = without_secrets(question.settings)
            named = await asyncio.to_thread(self._claims.name_run, job.batch, job.question, question.run, own)
            known = self._named[place] = (self._clock(), *named)
            if len(self._named) > MOST:
                self._named.pop(next(iter(self._named)))
        _, run, settings = known
        return question if run == question.run else replace(question, run=run, settings=settings)


def _allowed(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of a job as keywords; raises ConfigError if they are gone, or would read a file."""
    if options is None:
        raise ConfigError(
            "the queue no longer has the question of this job; add the image to the queue again"
        )
    unknown = sorted(set(options) - ALLOWED)
    if unknown:
        raise ConfigError(
            f"the question of this job has the option {unknown[0]!r}, which this worker does not "
            "know; update vlmbatch for this worker"
        )
    schema = options.get("schema")
    if schema is not None and not (isinstance(schema, str) and is_schema_itself(schema)):
        raise ConfigError(
            "the schema of this job is not the text of a JSON Schema; correct it, and send the job again"
        )
    return dict(options)
