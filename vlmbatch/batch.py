"""The Python interface for folders: a run, in an event loop or without one."""

import asyncio
import concurrent.futures
import dataclasses
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import Any, Generic, Literal, Unpack

from vlmbatch.config import RunConfig, given_config
from vlmbatch.config.answer_class import AnswerT, SchemaText
from vlmbatch.config.keywords import BatchKeywords
from vlmbatch.errors import AnswerClassError, ConfigError, VlmbatchError, shortened
from vlmbatch.events import Event, RunFinished, checked_observers
from vlmbatch.observers.notices import Notices, warn_caller
from vlmbatch.pipeline.runner import RunContext, run
from vlmbatch.protocols import Observer, Sleep
from vlmbatch.records import M, Result, Summary
from vlmbatch.sources.given import GivenImage, numbered_references
from vlmbatch.sources.in_memory import InMemoryImage


def run_batch(
    *images: "GivenImage",
    config: "RunConfig | None" = None,
    observers: "Sequence[Observer]" = (),
    progress: bool = False,
    schema: "type[AnswerT] | SchemaText | None" = None,
    **options: "Unpack[BatchKeywords]",
) -> "Batch[AnswerT]":
    """Send images, and all images below folders, to a vision model; iterate over the Batch.

    ::

        batch = run_batch("photos", prompt="Describe this image", model="qwen2.5vl", output="captions.jsonl")
        for result in batch:
            print(result.id, result.text or result.error)
        print(batch.summary)

    Inside an event loop, ``async for`` does the same. Results come as they are ready. With `output`, each
    record is in that file before its result comes, and images that the file has already are skipped.

    The run warns with a VlmbatchWarning at the line of your loop: for example if the endpoint is down and
    the run waits for it.

    Args:
        images: folders, files, the bytes of image files, and PIL images. Each is an argument of its own:
            ``run_batch(*images)``. The id of an image in memory has its position among the arguments,
            from 1: ``(in memory 3)``. Images in memory are sent before files. If they do not fit into
            memory, give a generator to answer_many() of a session.
        config: all options as one value, instead of `options`. The paths in it come before `images`.
        observers: called with every event of the run; vlmbatch.events has the events.
        progress: shows a bar on a terminal and in a notebook, and plain lines on standard error elsewhere.
            The messages of the run appear there, too, and are not warnings.
        schema: a JSON Schema (a dict, a text or a file), or a pydantic class. Then ``result.parsed`` is the
            parsed answer: JSON, or an instance of the class.
        options: each option of ``vlmbatch run --help`` by its name with underscores: ``max_size=768`` is
            ``--max-size 768``. The most common are `prompt`, `model`, `backend`, `base_url`, `output`,
            `append`, `limit`, `include`, `max_tokens` and `concurrency`.

    Raises:
        TypeError: one of `images` is not an image.
        VlmbatchError: an option is wrong; or, while you iterate, an error ends the run. If a single image
            fails, you get a result with `failure`, and no exception.
    """
    try:
        run_config = given_config(config, RunConfig.of_batch, schema, options)
        given_observers = checked_observers(observers)
        given = numbered_references(images, run_config.image.max_pixels_in)
        in_memory = [image for image in given if isinstance(image, InMemoryImage)]
        paths = (image.uri for image in given if not isinstance(image, InMemoryImage))
        run_config = dataclasses.replace(run_config, paths=(*run_config.paths, *paths))
        if not in_memory and not run_config.paths:
            raise ConfigError("no image is given; name a folder of images, for example run_batch('photos')")
    except ConfigError as error:
        raise shortened(error) from None
    notices: Literal["progress", "warnings"] = "progress" if progress else "warnings"
    return Batch(run_config, given_observers, notices=notices, in_memory=in_memory)


class Batch(Generic[M]):
    """A run that is ready to start: iterate over it once, with ``for`` or ``async for``.

    Each item is a Result. After the last one, `summary` says how the run ended. Leaving the loop ends the
    run, and so does stop(), which waits for the answers in flight. run_batch() makes a Batch.
    """

    def __init__(
        self,
        config: RunConfig,
        observers: "Sequence[Observer]" = (),
        *,
        in_memory: Sequence[InMemoryImage] = (),
        notices: Literal["warnings", "progress", "observers"] = "observers",
        stdout: bool = False,
        require_images: bool = False,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`notices` says what happens to notices: Python warnings, lines with the progress, or only events.

        With `stdout`, records go to standard output if `config` names no output file. With
        `require_images`, folders without any image raise a ConfigError, unless --allow-empty is set.

        `sleep` waits between attempts; tests replace it, so that they do not wait. The images `in_memory`
        come before those of `config`.
        """
        self.config = config
        self.summary: Summary | None = None
        """How the run ended; None before that, or if the run never started."""
        self._observers = tuple(observers)
        self._in_memory = in_memory
        self._notices = notices
        self._stdout = stdout
        self._require_images = require_images
        self._sleep = sleep
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Begin no more images and end when those in flight are written; may be called in any thread."""
        if self._loop is None:
            self._stop.set()
        else:
            self._loop.call_soon_threadsafe(self._stop.set)

    async def __aiter__(self) -> AsyncGenerator[Result[M], None]:
        """Run, and yield each result once it is written."""
        try:
            with self._progress():
                async with aclosing(self._items()) as items:
                    async for item in items:
                        if isinstance(item, str):
                            warn_caller(item)
                        else:
                            yield item
        except VlmbatchError as error:
            raise shortened(error) from None

    async def _items(self) -> AsyncGenerator[Result[M] | str, None]:
        """Run, and yield each result once it is written, and each notice that becomes a warning."""
        if self._loop is not None:
            raise RuntimeError("a Batch runs once; make another with run_batch()")
        self._loop = asyncio.get_running_loop()
        results: asyncio.Queue[Result[M] | str | None] = asyncio.Queue()
        notices = Notices()

        def notify(event: Event) -> None:
            self._notify(event)
            if self._notices == "warnings":
                for notice in notices.of(event):
                    results.put_nowait(notice)

        async def deliver(result: Result[Any]) -> None:
            results.put_nowait(result)
            await results.join()  # the consumer sets the pace

        async def drive() -> None:
            context = RunContext(
                deliver=deliver,
                notify=notify,
                stop=self._stop,
                stdout=self._stdout,
                require_images=self._require_images,
                sleep=self._sleep,
                in_memory=self._in_memory,
            )
            try:
                await run(self.config, context)
            except AnswerClassError as error:
                raise error.raised from error.raised.__cause__
            finally:
                results.put_nowait(None)

        driving = asyncio.create_task(drive())
        try:
            while (result := await results.get()) is not None:
                results.task_done()
                yield result
            await driving
        finally:
            driving.cancel()
            await asyncio.wait([driving])

    def __iter__(self) -> Iterator[Result[M]]:
        """Run in a thread of its own, and yield each result once it is written.

        Leaving the loop ends the run at once; answers to requests in flight are lost.
        """
        results: queue.SimpleQueue[Result[M] | str | BaseException | None] = queue.SimpleQueue()
        loop_thread: concurrent.futures.Future[_LoopThread] = concurrent.futures.Future()

        async def pump() -> None:
            this_thread = _LoopThread()
            loop_thread.set_result(this_thread)
            async with aclosing(self._items()) as items:
                async for item in items:
                    results.put(item)
                    if isinstance(item, Result):
                        await this_thread.wanted.wait()  # the consumer sets the pace
                        this_thread.wanted.clear()

        def drive() -> None:
            try:
                asyncio.run(pump())
            except BaseException as error:  # noqa: BLE001  # carried over to the thread that iterates
                results.put(error)
            else:
                results.put(None)

        thread = threading.Thread(target=drive, name="vlmbatch", daemon=True)
        with self._progress():
            thread.start()
            try:
                while (item := results.get()) is not None:
                    if isinstance(item, BaseException):
                        raise shortened(item)
                    if isinstance(item, str):
                        warn_caller(item)
                    else:
                        yield item
                        loop_thread.result().call(loop_thread.result().wanted.set)
            finally:
                loop_thread.result().call(loop_thread.result().cancel)
                thread.join()

    @contextmanager
    def _progress(self) -> Iterator[None]:
        """Inside the ``with``, show the progress if `notices` is "progress"."""
        if self._notices != "progress":
            yield
            return
        from vlmbatch.observers.progress import open_progress  # loads rich

        with open_progress(verbose=self.config.display.verbose) as observer:
            self._observers += (lambda event: None if isinstance(event, RunFinished) else observer(event),)
            try:
                yield
            finally:
                if self.summary is not None:  # only now, so that it is below the lines about the last result
                    observer(RunFinished(summary=self.summary))

    def _notify(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            self.summary = event.summary
        for observer in self._observers:
            observer(event)


class _LoopThread:
    """What the iterating thread needs of the other thread: its event loop and its task."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "made inside a task"
        self.cancel = task.cancel
        self.wanted = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def call(self, function: Callable[[], object]) -> None:
        """Call the function on the loop, unless the loop has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)
