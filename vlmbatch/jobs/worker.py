"""The worker: takes jobs from the queue, answers them with one session, and keeps all its slots busy."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from vlmbatch.aio import first
from vlmbatch.errors import ConfigError, QueueAwayError, QueueFullError, StoreAwayError, VlmbatchError
from vlmbatch.events import ImageFinished, tell
from vlmbatch.jobs.claims import MOST_DEATHS, Claim, Claims
from vlmbatch.jobs.dispatcher import Dispatcher
from vlmbatch.jobs.job import ImageJob
from vlmbatch.jobs.opening import Jobs
from vlmbatch.jobs.question_cache import QuestionCache
from vlmbatch.jobs.redis_retry import RedisRetry
from vlmbatch.jobs.registration import RegisteredWorker
from vlmbatch.jobs.result_writer import ResultWriter
from vlmbatch.jobs.store_cleanup import StoreCleanup
from vlmbatch.jobs.stored_images import StoredImages, references_of
from vlmbatch.pipeline.question import Question
from vlmbatch.pipeline.session import Session
from vlmbatch.pipeline.task import ImageTask
from vlmbatch.protocols import Observer
from vlmbatch.records import Failure, Result

BEAT_S = 15.0
"""The seconds between two heartbeats: a worker extends its leases, and looks for jobs of dead workers."""
PAUSE_S = 1.0
"""The seconds after which a paused worker checks again whether it can go on."""


class Worker:
    """Works on jobs until it is cancelled or the queue is empty."""

    def __init__(
        self,
        session: Session,
        jobs: Jobs,
        registered: RegisteredWorker,
        notify: Observer,
        *,
        ends_when_empty: bool = False,
    ) -> None:
        """`notify` gets an ImageFinished for each result that is the first one of its job."""
        say = partial(tell, notify)
        say_in_loop = partial(asyncio.get_running_loop().call_soon_threadsafe, say)
        self._session = session
        self._jobs = jobs
        self._registered = registered
        self._claims = claims = Claims(
            jobs.queue.connection, registered.name, registered.queue_names(), say_in_loop
        )
        self._notify = notify
        self._retry = RedisRetry(say)
        self._dispatcher = Dispatcher(claims, self._retry, ends_when_empty=ends_when_empty)
        self._results = ResultWriter(claims, self._retry)
        self._questions = QuestionCache(session, claims)
        self._images = StoredImages(jobs.store, session.config.input.max_bytes)
        self._cleanup = StoreCleanup(jobs)
        self._active: dict[str, tuple[Claim, asyncio.Task[None]]] = {}
        self._recovering: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Work; when this task is cancelled, finish jobs within --drain, and return the others to the queue.

        Raises:
            ConfigError: this worker cannot use the queue.
        """
        await self._retry.call(self._registered.begin)
        try:
            async with asyncio.TaskGroup() as group:
                await self._work_until_end(group)
        except BaseExceptionGroup as error:
            raise first(error) from error
        finally:
            await self._put_back()

    async def _work_until_end(self, group: asyncio.TaskGroup) -> None:
        """Start all tasks, and wait until the dispatcher has ended and its jobs have their results."""
        background = [group.create_task(work()) for work in (self._results.run, self._beat)]
        tasks = [group.create_task(self._work()) for _ in range(self._session.most_at_once)]
        tasks.append(group.create_task(self._dispatcher.run()))
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            self._dispatcher.stop()
            await asyncio.wait(tasks, timeout=self._session.config.run.drain)
            raise
        finally:
            for task in (*tasks, *background):
                task.cancel()

    async def _put_back(self) -> None:
        """Return the jobs without a result to the queue. If Redis is away, their leases end by themselves."""
        left = list(self._active.values())
        for _, task in left:
            task.cancel()
        if left:
            await asyncio.wait([task for _, task in left])
        if self._recovering is not None:
            self._recovering.cancel()
        with suppress(QueueAwayError, QueueFullError, StoreAwayError):
            claims = [claim for claim, _ in left] + self._dispatcher.untaken
            await asyncio.to_thread(self._claims.release, claims)
            await asyncio.to_thread(self._registered.end)
            await asyncio.to_thread(self._cleanup.delete_copies)

    async def _work(self) -> None:
        """Answer one job after the other."""
        while not self._dispatcher.is_over:
            async with self._session.room():
                claim = await self._dispatcher.take()
                if claim is None:
                    return
                task = asyncio.create_task(self._do(claim))
                self._active[claim.job.id] = claim, task
                try:
                    await asyncio.wait((task,))
                finally:
                    if task.done():
                        self._active.pop(claim.job.id, None)
                    self._dispatcher.in_work -= 1
                if not task.cancelled():
                    task.result()

    async def _do(self, claim: Claim) -> None:
        """Bring one job to its result, or return it to the queue if that is not possible now."""
        try:
            result = await self._result(claim)
        except VlmbatchError as error:
            await self._retry.call(lambda: self._claims.release([claim]))
            self._pause(error)
            return
        await self._finish(claim, result)

    async def _result(self, claim: Claim) -> Result:
        """The result of a job.

        Raises:
            VlmbatchError: no endpoint can answer now, the store is away, or the machine has no memory left.
        """
        try:
            question = await self._questions.of(claim.job)
        except ConfigError as error:
            return self._without_question(claim.job, error)
        return await self._session.answer_in_room(self._task(claim.job, question))

    def _task(self, job: ImageJob, question: Question) -> ImageTask:
        return ImageTask(references_of(job), self._images, question, id=job.image_id)

    def _without_question(self, job: ImageJob, error: ConfigError) -> Result:
        """The failure of a job whose question cannot be asked."""
        return Result(
            id=job.image_id,
            endpoint=self._session.endpoint,
            run=job.question[:12],
            started_at=datetime.now(UTC),
            duration_s=0.0,
            failure=Failure(kind="bad_config", message=str(error)),
        )

    async def _finish(self, claim: Claim, result: Result) -> None:
        """Store the result. Another worker may have stored one before: then this one changes nothing."""
        if await self._results.finish(claim, result.to_record()):
            self._cleanup.finished(claim.job)
            self._notify(ImageFinished(result=result))

    def _pause(self, error: VlmbatchError) -> None:
        """Claim nothing until an endpoint is up and the store can be reached."""
        self._dispatcher.pause()
        if self._recovering is None or self._recovering.done():
            tell(self._notify, f"the worker is paused, and its jobs are back in the queue: {error}")
            self._recovering = asyncio.create_task(self._recover())

    async def _recover(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_S)
            with suppress(StoreAwayError):
                if self._session.state.up:
                    await asyncio.to_thread(self._jobs.store.check)
                    break
        tell(self._notify, "the worker takes jobs again")
        self._dispatcher.resume()

    async def _beat(self) -> None:
        """Extend leases, return jobs of dead workers to the queue, and delete images that no job needs."""
        while True:
            try:
                await self._keep_leases()
                for claim in await asyncio.to_thread(self._claims.reclaim):
                    await self._fail_crashed(claim)
                await asyncio.to_thread(self._cleanup.delete_copies)
                await asyncio.to_thread(self._cleanup.delete_orphans)
            except (QueueAwayError, QueueFullError, StoreAwayError):
                pass  # the tasks have a message for the user; the next beat tries again
            await asyncio.sleep(BEAT_S)

    async def _keep_leases(self) -> None:
        held = dict(self._active)
        await asyncio.to_thread(self._registered.beat, in_work=len(held))
        for job_id in await asyncio.to_thread(self._claims.extend, [claim for claim, _ in held.values()]):
            held[job_id][1].cancel()  # it was cancelled, or has its result from another worker

    async def _fail_crashed(self, claim: Claim) -> None:
        """Give a job a failure, since several workers died while they had it."""
        failure = Failure(
            kind="crash",
            message=f"{MOST_DEATHS} workers died while they worked on this image; check it, and add it "
            "to the queue again",
        )
        try:
            result = self._task(claim.job, await self._questions.of(claim.job)).result(failure)
        except ConfigError as error:
            result = self._without_question(claim.job, error)
        except VlmbatchError:
            return  # its lease ends once more
        await self._finish(claim, result)
