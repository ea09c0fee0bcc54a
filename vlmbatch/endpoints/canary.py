"""The canary: proves with a picture of one colour that pictures reach the model."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    FatalBackendError,
    RejectedError,
    TransientError,
)
from vlmbatch.imaging.prepare import uniform
from vlmbatch.protocols import Backend
from vlmbatch.records import Completion, Request

QUESTION = "What colour fills this picture? Answer with one word."
LONGER_QUESTION = (
    f"{QUESTION} It is filled from edge to edge with a single colour, and the name of that colour is all "
    "that is wanted, without a sentence around it."
)
MAX_TOKENS = 16
LEAST_PICTURE_TOKENS = 16
"""Fewer tokens than any known model takes for 224x224 pixels (Qwen3-VL: 49), more than its marks take."""
TRIES = 3
QUESTIONS = 3
"""A proof takes at most this many questions."""
UNPROVEN = "whether pictures reach the model could not be proven"

_ADMISSION = re.compile(
    r"\[img-\d+\]|<image>|\bno (image|picture|photo)|text-based"
    r"|(don't|do not|can't|cannot|unable to|not able to) (actually |directly )?(see|view|look)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Colour:
    """A colour that a model hardly guesses: red, green and blue, and a pattern of its names."""

    rgb: tuple[int, int, int]
    names: str


ORANGE = Colour(rgb=(255, 140, 0), names=r"orange|amber")
PURPLE = Colour(rgb=(128, 0, 128), names=r"purple|violet|magenta|plum")


class Canary:
    """Cheap questions that show whether the endpoint works and its model sees."""

    def __init__(
        self,
        backend: Backend,
        question: Request,
        *,
        deadline_s: float,
        tell: Callable[[str], None],
    ) -> None:
        """`question` gives the generation options: with others, Ollama would load the model anew.

        `deadline_s` leaves time to load the model; `tell` gets the doubts.
        """
        generation = replace(
            question.generation, max_tokens=MAX_TOKENS, thinking=False, schema=None, logprobs=None
        )
        accept = frozenset(("length", "loop", "empty"))
        self._question = replace(
            question, system=None, generation=generation, accept=accept, deadline_s=deadline_s
        )
        self._backend = backend
        self._tell = tell
        self._failures = 0
        self._answered = False

    async def prove(self) -> None:
        """Prove once that pictures reach the model; report if that cannot be proven.

        Raises:
            FatalBackendError: they do not, or no image can succeed for another reason.
            UnavailableError: the endpoint is down.
            TransientError: the question timed out, or has failed at most twice so far.
        """
        try:
            doubt = await self._doubt()
        except TransientError as error:
            self._failures += 1
            if error.kind == "timeout" or self._failures < TRIES:
                raise
            doubt = str(error)
        except (RejectedError, BadAnswerError) as error:
            doubt = str(error)
        if doubt:
            self._tell(f"{UNPROVEN}: {doubt}")

    async def ask(self) -> None:
        """Probe with one tiny picture, if the endpoint ever answered that.

        Raises:
            UnavailableError: the endpoint is down, or fails.
            FatalBackendError: the endpoint is up and refuses.
        """
        if not self._answered:
            return
        try:
            await self._look(ORANGE, QUESTION)
        except (RejectedError, BadAnswerError):
            return  # the endpoint answers, which is all a probe needs

    async def _doubt(self) -> str | None:
        """Why it is unknown whether the model sees; None if it does."""
        first = await self._look(ORANGE, QUESTION)
        self._answered = True
        without = await self._tokens_without_picture()
        tokens = first.usage.input_tokens
        if not tokens or not without or tokens - without >= LEAST_PICTURE_TOKENS:
            return None
        again = await self._look(PURPLE, LONGER_QUESTION)
        if re.search(PURPLE.names, again.text, re.IGNORECASE):
            return None
        admits = _ADMISSION.search(first.text) or _ADMISSION.search(again.text)
        if again.usage.input_tokens in (0, tokens) and not admits:
            return "the endpoint counts the same tokens for any question"
        raise FatalBackendError(
            f"pictures do not reach the model: a question costs {tokens} tokens with a picture and {without} "
            "without it, and the model could not name the colour of a picture; choose a vision model with "
            "--model (a .gguf model also needs --mmproj), update the server, or go on all the same with "
            "--no-canary",
            kind="no_vision",
        )

    async def _look(self, colour: Colour, text: str) -> Completion:
        picture = uniform(colour.rgb)
        return await self._backend.complete(replace(self._question, prompt=text, images=(picture,)))

    async def _tokens_without_picture(self) -> int:
        """The tokens of the question without a picture; 0 if they are unknown."""
        try:
            answer = await self._backend.complete(replace(self._question, prompt=QUESTION, images=()))
        except BackendError:  # some servers refuse a question without a picture, which proves nothing
            return 0
        return answer.usage.input_tokens
