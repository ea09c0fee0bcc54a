"""Adds the images of folders to a batch of the job queue. The same call again adds only what is missing."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from vlmbatch.aio import ReadAhead, Unawaited, threads
from vlmbatch.config import RunConfig
from vlmbatch.config.job_queue import Priority
from vlmbatch.errors import ConfigError, ImageError
from vlmbatch.events import SourceProblem
from vlmbatch.images import FileStamp, ImageRef
from vlmbatch.jobs.batch_lock import BatchLock
from vlmbatch.jobs.batches import BatchState
from vlmbatch.jobs.job import ImageJob, JobImage, job_id_of
from vlmbatch.jobs.opening import Jobs
from vlmbatch.jobs.questions import digest_of, question_options
from vlmbatch.jobs.registration import workers
from vlmbatch.pipeline.empty_paths import why_refused
from vlmbatch.pipeline.fingerprint import accepted_now, answer_settings
from vlmbatch.prompts import prompt_text
from vlmbatch.prompts.schemas import schema_text
from vlmbatch.protocols import Finished, Source
from vlmbatch.records import Endpoint
from vlmbatch.sources import OwnFiles, open_source
from vlmbatch.writers.done_before import done_before

CHUNK = 100
"""This many images go to Redis at once."""
COPIES = 8
"""This many images are copied to the store at once."""
KEEP_S = 30 * 24 * 3600
"""How long a result waits for `vlmbatch collect`."""
OF_THE_WORKER = ("model", "model_digest", "extra_body", "mm_processor_kwargs", "option")
"""The settings of a run that the worker decides."""


@dataclass(slots=True, kw_only=True)
class EnqueueCounts:
    """How many images were added. `known` ones were in the queue already.

    `skipped` ones have an answer in the output, and `failed_before` ones failed for good there. `unread` ones
    could not be read, and are not in the queue. Folders that could not be listed count as unread, too.
    """

    new: int = 0
    known: int = 0
    skipped: int = 0
    failed_before: int = 0
    unread: int = 0

    @property
    def queued(self) -> int:
        """How many of the images are in the queue, or have a result there."""
        return self.new + self.known


class Enqueuer:
    """Adds the images of a config to its batch."""

    def __init__(
        self,
        config: RunConfig,
        on_problem: Callable[[SourceProblem], None],
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_problem` gets each folder and file that cannot be read; `on_progress` is called often.

        Both are called in the thread of the event loop.
        """
        self.counts = EnqueueCounts()
        self.source: Source
        """The images; set once run() has found the first one."""
        self.workers = 0
        """How many running workers can take these jobs; set at the end of run()."""
        self._config = config
        self._on_problem = on_problem
        self._on_progress = on_progress
        self._jobs: Jobs
        self._question = self._scope = ""

    async def run(self) -> None:
        """Add all images. If this ends early, the images that were added stay.

        Raises:
            ConfigError: an option is wrong, or the batch has other jobs.
            LockedError: another program fills the batch.
            OutputError: the output cannot be read.
            QueueAwayError, QueueFullError, StoreAwayError: try again later.
        """
        options = await asyncio.to_thread(question_options, self._config)
        finished = await asyncio.to_thread(self._finished)
        self.source = await asyncio.to_thread(self._opened_source, asyncio.get_running_loop())
        # the walk to the first image may be long, and its thread must not delay the exit
        refused = (why_refused(self._config, self.source) for _ in range(1))
        if (why := await ReadAhead(refused, ahead=1, name="vlmbatch-first").take()) is not None:
            raise ConfigError(why)
        self._jobs = await asyncio.to_thread(Jobs.open, self._config.jobs)
        try:
            async with BatchLock(self._jobs.batches, self._config.jobs.batch, "fill"):
                self._question = digest_of(options)
                begun = await asyncio.to_thread(self._begin)
                # no API key has this name; and an answer is reused only for images of one collection
                self._scope = f"batch:{self._config.jobs.batch}:{begun}"
                await asyncio.to_thread(self._jobs.queue.keep_question, self._question, options)
                await self._fill(finished)
                self.workers = await asyncio.to_thread(self._count_workers)
        finally:
            self._jobs.close()

    def _opened_source(self, loop: asyncio.AbstractEventLoop) -> Source:
        def report(problem: SourceProblem) -> None:
            loop.call_soon_threadsafe(self._problem, problem)

        return open_source(self._config.paths, self._config.input, report, OwnFiles.of(self._config))

    def _finished(self) -> Finished | None:
        """What an earlier run has done in the output; None without an output, or with other records."""
        config = self._config
        if config.output.output == "-":
            return None
        model = config.endpoint.model
        endpoint = Endpoint(backend="", url="", model=model or "")
        prompt, schema = prompt_text(config.prompt), schema_text(config.generation.schema)
        return done_before(
            config.output.output,
            answer_settings(config, endpoint, prompt, schema),
            [name for name in OF_THE_WORKER if name != "model" or model is None],
            retry_failed=config.output.retry_failed,
            again=accepted_now(config),
        )

    def _begin(self) -> str:
        """Make the batch, or go on with it if it has the same question; returns its `begun`."""
        batches, name = self._jobs.batches, self._config.jobs.batch
        model = self._config.endpoint.model or ""
        state = batches.state(name)
        if state is not None:
            if state.open or state.ready or not state.question:
                if (state.question, state.model) != (self._question, model):
                    raise _other_jobs(name, state)
                return state.begun
            batches.delete(name)
        return batches.begin(name, self._question, model=model)

    def _count_workers(self) -> int:
        model = self._config.endpoint.model
        return sum(model in (None, worker.model) for worker in workers(self._jobs.queue.connection))

    async def _fill(self, finished: Finished | None) -> None:
        refs = ReadAhead(self._unfinished(finished), ahead=CHUNK, name="vlmbatch-walk")
        try:
            with threads(COPIES, "vlmbatch-copy") as copying:
                while most := min(CHUNK, self._left()):
                    found = await refs.take_some(most)
                    if not found:
                        return
                    await self._add(found, copying)
                    self._on_progress()
        finally:
            refs.close()

    def _left(self) -> int:
        """How many more images --limit allows."""
        limit = self._config.input.limit
        return CHUNK if limit is None else limit - self.counts.new

    def _unfinished(self, finished: Finished | None) -> Iterator[ImageRef]:
        """The images that the output does not have; runs in a thread."""
        for image in self.source:
            done = None if finished is None else finished(image, self.source.version)
            if done is None:
                yield image
            elif done:
                self.counts.skipped += 1
            else:
                self.counts.failed_before += 1

    async def _add(self, refs: list[ImageRef], copying: Unawaited) -> None:
        """Add the jobs of these images that the queue does not have."""
        queue, loop = self._jobs.queue, asyncio.get_running_loop()
        jobs = await asyncio.to_thread(lambda: list(map(self._job_now, refs)))
        known = await asyncio.to_thread(queue.known, [job.id for job in jobs])
        copies = [
            loop.run_in_executor(copying, self._stored, ref, job)
            for ref, job in zip(refs, jobs, strict=True)
            if job.id not in known
        ]
        stored = await asyncio.gather(*copies)
        added = [job for job in stored if isinstance(job, ImageJob)]
        for problem in stored:
            if isinstance(problem, SourceProblem):
                self._problem(problem)
        new = await asyncio.to_thread(queue.add, added)
        self.counts.new += new
        self.counts.known += len(known) + len(added) - new

    def _job_now(self, ref: ImageRef) -> ImageJob:
        """The job of the file as it is now."""
        stamp = self.source.stamp(ref)
        # a file that cannot be read, or is too large, has no job: _stored() reports it
        key = None
        if stamp is not None and stamp.bytes <= self._config.input.max_bytes:
            key = self._jobs.store.key_of(Path(ref.uri))
        return self._job(ref, stamp, key)

    def _job(self, ref: ImageRef, stamp: FileStamp | None, key: str | None) -> ImageJob:
        """The job of an image; without a key, that of a copy in the store."""
        options, model = self._config.jobs, self._config.endpoint.model or ""
        size, mtime = (None, None) if stamp is None else stamp
        job_id = job_id_of("enqueue", options.batch, self._question, ref.id, size, mtime)
        place = key or f"jobs/{datetime.now(UTC).date().isoformat()}/{job_id}/0"
        return ImageJob(
            id=job_id,
            image_id=ref.id,
            images=(JobImage(key=place, bytes=size, mtime=mtime),),
            question=self._question,
            keep_s=KEEP_S,
            scope=self._scope,
            batch=options.batch,
            priority=cast(Priority, options.priority),
            model=model,
        )

    def _stored(self, ref: ImageRef, job: ImageJob) -> ImageJob | SourceProblem:
        """The job, once its image is in the store; or why the image cannot be read. Blocks."""
        if not job.images[0].key.startswith("jobs/"):
            return job
        try:
            image = self.source.read(ref)
        except ImageError as error:
            return SourceProblem(path=ref.id, message=f"{error.kind}: {error}")
        copied = self._job(ref, image.stamp, None)  # the file may have changed a moment ago
        self._jobs.store.put(copied.images[0].key, image.data)
        return copied

    def _problem(self, problem: SourceProblem) -> None:
        self.counts.unread += 1
        self._on_problem(problem)


def _other_jobs(name: str, state: BatchState) -> ConfigError:
    """The error for a batch whose jobs have another question."""
    if not state.question:
        return ConfigError(f"the batch {name} belongs to the service; name another one with --batch")
    left = state.open + state.ready
    return ConfigError(
        f"the batch {name} has another question or model, and {left} of its images are not collected yet; "
        "name another batch with --batch, or collect them first: vlmbatch collect --batch "
        f"{name} -o answers.jsonl"
    )
