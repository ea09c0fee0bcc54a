"""How the commands that are no run end: by themselves, or by a signal, which cancels what they do."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine

from vlmbatch.aio import Unawaited
from vlmbatch.cli.ending import STOP_SIGNALS
from vlmbatch.cli.speaking import Voice
from vlmbatch.errors import VlmbatchError, blaming_the_machine
from vlmbatch.observers import clean

Work = Callable[[], Coroutine[object, object, int]]


def until_it_ends(work: Work, voice: Voice) -> int:
    """Do the work, and return its exit code, or that of the signal or error that ended it, which is told.

    Signals are heard also where this is the first process of a container, which no signal ends by itself.
    """
    try:
        with blaming_the_machine():
            return asyncio.run(_heeding_signals(work))
    except VlmbatchError as error:
        voice.say("\n".join(map(clean, str(error).splitlines())))
        return error.exit_code
    finally:
        voice.close()


async def _heeding_signals(work: Work) -> int:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(Unawaited())
    working = asyncio.ensure_future(work())
    heard: list[int] = []

    def hear(number: int) -> None:
        if heard:
            os._exit(128 + number)
        heard.append(number)
        working.cancel()

    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, hear, number)
    await asyncio.wait((working,))
    return 128 + heard[0] if heard else working.result()
