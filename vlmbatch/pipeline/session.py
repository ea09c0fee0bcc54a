"""The session: opened once, it answers many questions. A run, a service and a queue worker all use it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from typing import TypeVar, Unpack

from vlmbatch.aio import first, threads
from vlmbatch.cache import Cache
from vlmbatch.config import RunConfig
from vlmbatch.config.answer_class import AnswerT, SchemaText
from vlmbatch.config.keywords import QuestionKeywords
from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.endpoints.cost import Budget, Prices
from vlmbatch.endpoints.discovery import EndpointUrls, endpoint_specs
from vlmbatch.endpoints.known_limits import KnownLimits, user_folder
from vlmbatch.endpoints.picture_limits import PictureLimits
from vlmbatch.endpoints.preflight import EndpointOpener, Preflight, naming_endpoint, preflight_all
from vlmbatch.endpoints.refusal_check import RefusalCheck
from vlmbatch.endpoints.session_check import SessionCheck
from vlmbatch.endpoints.supervisor import EndpointSupervisor
from vlmbatch.errors import resource_errors
from vlmbatch.events import tell
from vlmbatch.imaging.memory import DecodeMemory
from vlmbatch.machine import preparers
from vlmbatch.pipeline.calls import Calls, checked_deadline
from vlmbatch.pipeline.context_fit import ContextFit
from vlmbatch.pipeline.dedup import Deduplicator
from vlmbatch.pipeline.fingerprint import request_of
from vlmbatch.pipeline.image_pairs import ImageAndQuestion, checked_pair, in_thread
from vlmbatch.pipeline.preparer import Preparer
from vlmbatch.pipeline.processor import ImageProcessor
from vlmbatch.pipeline.question import Question, report_sizing
from vlmbatch.pipeline.retry import RetryPolicy
from vlmbatch.pipeline.session_state import EndpointState, SessionState
from vlmbatch.pipeline.task import ImageTask
from vlmbatch.prompts.checking import CHECKER
from vlmbatch.protocols import Observer, Sleep, Writer
from vlmbatch.records import Endpoint, Result
from vlmbatch.sources.given import GivenImage, GivenImages, references

MOST_WAITING = 1000
"""This many calls may wait to begin, unless the session is opened with another number."""

T = TypeVar("T")


class Session:
    """A session in an event loop: ``async with open_session(...) as session`` opens it.

    It has the endpoints, preparer, retry, deduplication, cache and cost of one model, for many questions at
    once. question() makes a question, and answer() and answer_many() answer it.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        found: Sequence[Preflight],
        supervisor: EndpointSupervisor,
        processor: ImageProcessor,
        urls: EndpointUrls,
        budget: Budget,
        cache: Cache | None,
        notify: Observer,
        stop: asyncio.Event,
        max_waiting: int = MOST_WAITING,
    ) -> None:
        """Use Session.open()."""
        self.config = config
        self.found = found
        self.supervisor = supervisor
        self.processor = processor
        self.urls = urls
        self.budget = budget
        self.cache = cache
        self._notify = notify
        self._given = GivenImages(config.input.max_bytes)
        self._calls = Calls(processor, cache, stop, notify, max_waiting=max_waiting, drain_s=config.run.drain)

    @classmethod
    async def open(
        cls,
        config: RunConfig,
        *,
        notify: Observer,
        stop: asyncio.Event,
        stack: AsyncExitStack,
        sleep: Sleep = asyncio.sleep,
        output: Writer | None = None,
        wait: bool = True,
        recovers: bool = False,
        max_waiting: int = MOST_WAITING,
    ) -> "Session":
        """Find the endpoints and open all parts; `stack` closes them.

        `output` holds answers to reuse. With `wait`, at least one endpoint is up, or a single endpoint is
        down and the cache has its identity. For `recovers` see EndpointPool.

        Raises:
            VlmbatchError: the options are wrong, or no endpoint is up.
        """
        prices = await asyncio.to_thread(_prices, config)
        urls = await asyncio.to_thread(EndpointUrls, config.endpoint.base_url)
        specs = await asyncio.to_thread(lambda: endpoint_specs(config, urls.read()))
        cache = await _open_cache(config, notify, stack)
        budget = Budget(config.run.max_cost, stop, partial(tell, notify))
        bugs = Bugs(notify)
        check = SessionCheck if recovers else RefusalCheck
        opener = EndpointOpener(budget, prices, stack, bugs, check=check)
        found = await preflight_all(config, specs, opener, cache, notify, sleep, wait=wait)
        if len(found) == 1 and found[0].endpoint is not None and found[0].away is not None:
            tell(notify, f"{found[0].away}; answers come from the cache alone")
        known_limits = KnownLimits(user_folder() if config.run.concurrency is None else None)
        await asyncio.to_thread(known_limits.read)
        supervisor = EndpointSupervisor(
            config,
            request_of(config, ""),
            opener,
            bugs,
            notify,
            sleep,
            known_limits=known_limits,
            recovers=recovers,
        )
        for each in found:
            supervisor.add(each)
        dedup = Deduplicator(output=output, cache=cache, enabled=config.output.dedupe)
        limits = PictureLimits(supervisor.pool)
        preparer = _preparer(config, dedup, limits, notify, stack)
        processor = ImageProcessor(
            preparer=preparer,
            fit=ContextFit(preparer, limits, notify),
            dedup=dedup,
            pool=supervisor.pool,
            retry=RetryPolicy(retries=config.run.retries, sleep=sleep),
            fallback_on=config.endpoint.reasons,
            bugs=bugs,
            notify=notify,
            stop=stop,
        )
        return cls(
            config,
            found=found,
            supervisor=supervisor,
            processor=processor,
            urls=urls,
            budget=budget,
            cache=cache,
            notify=notify,
            stop=stop,
            max_waiting=max_waiting,
        )

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint whose model the questions name; raises UnavailableError while the model is unknown."""
        first = next((each for each in self.supervisor.pool if each.rank == 0 and each.is_identified), None)
        return naming_endpoint(self.found) if first is None else first.identity

    def question(
        self, *, schema: "type[AnswerT] | SchemaText | None" = None, **options: "Unpack[QuestionKeywords]"
    ) -> "Question[AnswerT]":
        """A question, from the options of the session and these; it reads files, if options name any.

        `options` are those of prompt, answer and picture, by their flag's name with underscores: `prompt`,
        `system`, `max_tokens`, `temperature`, `max_size` and so on. `schema` is a JSON Schema (a dict, a text
        or a file), or a pydantic class, whose instances are then ``result.parsed``. The question stays valid
        for as long as the session is open.

        Raises:
            ConfigError: an option is unknown, out of range, or belongs to the session.
            UnavailableError: no endpoint has been up yet, and no option names the model.
        """
        config = self.config.for_question(schema=schema, **options)
        question: Question[AnswerT] = Question.asked(config, self.endpoint)
        report_sizing(question, self._notify)
        return question

    async def question_within(
        self, scope: str, *, schema: "SchemaText | None" = None, **options: "Unpack[QuestionKeywords]"
    ) -> Question:
        """The question of a client of a service; see question() and Question.within().

        The schema is checked in a thread, in which scopes take turns. A schema that takes too long, which is
        a ConfigError, delays another client by seconds at most.
        """
        config = self.config.for_question(schema=schema, **options)
        asked = await CHECKER.turns.call(scope, partial(Question.asked, config, self.endpoint))
        report_sizing(asked, self._notify)
        return asked.within(scope)

    async def answer(
        self,
        image: "GivenImage | Sequence[GivenImage]",
        question: Question[T],
        *,
        image_id: str | None = None,
        deadline_s: float | None = None,
        reuse: bool = True,
    ) -> Result[T]:
        """The result for this image, or for several images in one request.

        An image is a path, the bytes of a file, or a PIL image. `question` comes from ``session.question()``.
        A failure of the image is a result, too: then `result.failure` says why.

        `image_id` names the result; by default it is the path. After `deadline_s` seconds the result is a
        failure of kind `timeout`. With `reuse`, an answer to the same question about the same content is
        reused from memory or the cache. Cancelling the call frees its slot.

        Raises:
            Busy: too many calls wait to begin.
            SessionClosed: the session was closed.
            VlmbatchError: no endpoint can answer now: they were down for too long, or refuse all requests.
        """
        task = self._task(image, question, image_id, reuse)
        return await self._calls.answer(task, checked_deadline(deadline_s))

    async def answer_many(
        self,
        pairs: Iterable[ImageAndQuestion[T]] | AsyncIterable[ImageAndQuestion[T]],
        *,
        deadline_s: float | None = None,
        reuse: bool = True,
    ) -> AsyncGenerator[Result[T], None]:
        """The results for pairs of image and question, in the order in which they are ready.

        With `concurrency` auto, at most 320 pairs are in work for one endpoint. The next pair is read when
        one of them is done. An iterable that blocks is read in a thread. The id of an image in memory has the
        position of its pair, from 1: ``(in memory 3)``. See answer() for the rest. The first error cancels
        the other calls.
        """
        checked_deadline(deadline_s)
        taken = in_thread(pairs) if isinstance(pairs, Iterable) else aiter(pairs)
        results: asyncio.Queue[Result[T] | BaseException | None] = asyncio.Queue(1)
        working = asyncio.create_task(self._answer_all(taken, results, deadline_s, reuse))
        try:
            while (result := await results.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            working.cancel()
            await asyncio.wait((working,))
            if isinstance(taken, AsyncGenerator):
                await taken.aclose()

    async def _answer_all(
        self,
        pairs: AsyncIterator[ImageAndQuestion[T]],
        results: asyncio.Queue[Result[T] | BaseException | None],
        deadline_s: float | None,
        reuse: bool,
    ) -> None:
        """Put all results into the queue, then None, or the error that ended the work."""
        pulling = asyncio.Lock()
        numbers = count(1)

        async def work() -> None:
            while True:
                async with pulling:
                    try:
                        pair, number = await anext(pairs), next(numbers)
                    except StopAsyncIteration:
                        return
                image, question = checked_pair(pair)
                task = self._task(image, question, None, reuse, number)
                await results.put(await self._calls.answer(task, deadline_s, is_bounded=True))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.most_at_once):
                    group.create_task(work())
        except BaseExceptionGroup as error:
            await results.put(first(error))
        else:
            await results.put(None)

    def room(self) -> AbstractAsyncContextManager[None]:
        """Hold a place for one task of answer_in_room(); a few more than requests at once have one."""
        return self.processor.pool.room()

    async def answer_in_room(self, task: ImageTask) -> Result:
        """The result of a task whose caller holds a room; raises as answer() does, but never Busy."""
        return await self._calls.answer(task, is_bounded=True, has_room=True)

    @property
    def most_at_once(self) -> int:
        """How many images can ever be on their way at once."""
        return self.supervisor.most_rooms(may_grow=self.urls.may_change)

    @property
    def state(self) -> SessionState:
        """Each endpoint, and the calls that wait to begin."""
        endpoints = [each for each in self.supervisor.pool if not each.leaving]
        return SessionState(endpoints=tuple(map(EndpointState.of, endpoints)), waiting=self._calls.waiting)

    async def close(self, *, at_once: bool = False) -> None:
        """Begin nothing more, and wait for the requests in flight for --drain seconds, unless `at_once`."""
        await self._calls.close(at_once=at_once)

    def _task(
        self,
        image: "GivenImage | Sequence[GivenImage]",
        question: Question,
        image_id: str | None,
        reuse: bool,
        number: int | None = None,
    ) -> ImageTask:
        if not isinstance(question, Question):
            raise TypeError(
                f"the question is a {type(question).__name__}; make it with session.question(prompt=...)"
            )
        refs = references(image, question.image.max_pixels_in, number)
        return ImageTask(refs, self._given, question, id=image_id, reuse=reuse)


@asynccontextmanager
async def opened(
    config: RunConfig,
    notify: Observer,
    *,
    wait: bool = True,
    max_waiting: int = MOST_WAITING,
    sleep: Sleep = asyncio.sleep,
) -> AsyncIterator[Session]:
    """A session at work inside the ``async with``; see open_session().

    Raises:
        VlmbatchError: the options are wrong, or no endpoint is up.
    """
    async with AsyncExitStack() as stack:
        with resource_errors():
            session = await Session.open(
                config,
                notify=notify,
                stop=asyncio.Event(),
                stack=stack,
                sleep=sleep,
                wait=wait,
                recovers=True,
                max_waiting=max_waiting,
            )
        async with session.supervisor.at_work(session.urls):
            session.supervisor.pool.prove_all()
            interrupted = False
            try:
                yield session
            except (asyncio.CancelledError, KeyboardInterrupt):
                interrupted = True
                raise
            finally:
                await session.close(at_once=interrupted)
                if config.endpoint.unload and not interrupted:
                    await session.supervisor.unload()


def _preparer(
    config: RunConfig, dedup: Deduplicator, limits: PictureLimits, notify: Observer, stack: AsyncExitStack
) -> Preparer:
    return Preparer(
        memory=DecodeMemory.of(config.run.decode_memory),
        max_bytes=config.input.max_bytes,
        dedup=dedup,
        threads=stack.enter_context(threads(preparers(), "vlmbatch-prepare")),
        limits=limits,
        notify=notify,
    )


def _prices(config: RunConfig) -> Prices | None:
    return None if config.display.prices is None else Prices(config.display.prices)


async def _open_cache(config: RunConfig, notify: Observer, stack: AsyncExitStack) -> Cache | None:
    folder = config.output.cache
    if folder is None:
        return None
    loop = asyncio.get_running_loop()

    def tell_loop(trouble: str) -> None:
        loop.call_soon_threadsafe(tell, notify, trouble)

    cache = await asyncio.to_thread(Cache, folder, tell_loop)
    stack.push_async_callback(asyncio.to_thread, cache.close)
    return cache
