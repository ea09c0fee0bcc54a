"""The canary: proves with a picture of one colour that pictures reach the model."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from vlmbatch.backends.classify.blindness import admits_blindness
from vlmbatch.backends.classify.body import clean
from vlmbatch.backends.confirm import ANY_FLAW, MAX_TOKENS, QUESTION, cold_s
from vlmbatch.backends.confirm import ORANGE as ORANGE_RGB
from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    FatalBackendError,
    InternalError,
    RefusedOptionError,
    RejectedError,
    TransientError,
    UnavailableError,
    UnreachableError,
)
from vlmbatch.imaging.prepare import uniform
from vlmbatch.protocols import Backend
from vlmbatch.records import Completion, Request

LONGER_QUESTION = (
    f"{QUESTION} It is filled from edge to edge with a single colour, and the name of that colour is all "
    "that is wanted, without a sentence around it."
)
LEAST_PICTURE_TOKENS = 16
"""Fewer tokens than any known model takes for 224x224 pixels (Qwen3-VL: 49), more than its marks take."""
CHARACTERS_A_TOKEN = 6
"""A count of base64 as text has at least one token for this many characters: the tokenizers of models make a
token of one to three characters of base64, and estimates make one of three or four."""
FORBIDDEN = 403
TRIES = 3
QUESTIONS = 3
"""A proof takes at most this many questions."""
UNPROVEN = "vlmbatch could not prove that pictures reach the model"
CHOOSE = "choose a vision model with --model (a .gguf model also needs --mmproj)"


def proof_s(timeout_s: float) -> float:
    """The time limit in seconds of a whole proof."""
    return cold_s(timeout_s) + (QUESTIONS - 1) * timeout_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Colour:
    """A colour that a model is unlikely to guess: red, green and blue, and patterns of its names.

    `near` is a pattern of names that a small model may use for it.
    """

    rgb: tuple[int, int, int]
    names: str
    near: str

    def is_named(self, text: str) -> bool:
        """Whether this answer names the colour."""
        return re.search(self.names, text, re.IGNORECASE) is not None and not admits_blindness(text)

    def is_nearly_named(self, text: str) -> bool:
        """Whether this answer names the colour, or one that is like it."""
        return self.is_named(text) or re.search(self.near, text, re.IGNORECASE) is not None


ORANGE = Colour(
    rgb=ORANGE_RGB, names=r"orange|amber", near=r"\b(red|yellow|gold|brown|tan|peach|coral|apricot)"
)
PURPLE = Colour(
    rgb=(128, 0, 128),
    names=r"purple|violet|magenta|plum",
    near=r"\b(pink|blue|indigo|lavender|mauve|maroon|fuchsia|lilac)",
)


class Counts(Enum):
    """What the reported input tokens say about a picture."""

    UNKNOWN = "they are not reported"
    NO_PICTURE = "the picture took no tokens"
    PICTURE = "the picture took tokens as a picture does"
    MAYBE_TEXT = "the base64 text of the picture may have been counted as text"


class Canary:
    """Cheap questions that show whether the endpoint works and its model sees."""

    def __init__(
        self,
        backend: Backend,
        question: Request,
        *,
        deadline_s: float,
        patience_s: float,
        tell: Callable[[str], None],
    ) -> None:
        """`question` gives the generation options: with others, Ollama would reload the model.

        `deadline_s` leaves time to load the model. An endpoint that refuses the canary as busy or down for
        `patience_s` may still answer images, so nothing is proven then. `tell` gets the doubts.
        """
        generation = replace(
            question.generation.brief(MAX_TOKENS), thinking=False, schema=None, logprobs=None
        )
        self._question = replace(question, system=None, generation=generation, accept=ANY_FLAW)
        self._deadline_s = deadline_s
        self._patience_s = patience_s
        self._backend = backend
        self._tell = tell
        self._failures = 0
        self._first_try_at: float | None = None
        self._told_doubt = False
        self.was_answered = False
        """Whether the endpoint has ever answered it; then a failure shows that the endpoint is not well."""

    async def prove(self, *, denied: bool = False) -> None:
        """Prove that pictures reach the model; report once if that cannot be proven.

        `denied`: the endpoint reports that the model cannot see, so a proof is needed.

        Raises:
            FatalBackendError: pictures do not reach the model, or no image can succeed for another reason.
            UnavailableError: the endpoint is down, or it refuses the question and there is patience left.
            TransientError: the question has failed at most twice so far, and there is time for another try.
        """
        if self._first_try_at is None:
            self._first_try_at = asyncio.get_running_loop().time()
        doubt = await self._doubt(self._first_try_at)
        self._failures, self._first_try_at = 0, None
        if doubt and denied:
            raise FatalBackendError(
                f"the endpoint reports that the model cannot see images, and a test did not prove otherwise: "
                f"{doubt}; {CHOOSE}, or update the server",
                kind="no_vision",
            )
        if doubt and not self._told_doubt:
            self._told_doubt = True
            self._tell(f"{UNPROVEN}: {doubt}")

    async def ask(self) -> None:
        """Probe with one tiny picture.

        Raises:
            UnavailableError: the endpoint is down, fails, or refuses the canary that it answered before.
            FatalBackendError: no image can succeed any more.
        """
        try:
            await self._look(ORANGE, QUESTION, self._deadline_s)
        except FatalBackendError as error:
            if error.kind not in ("auth", "wrong_url", "model_not_found"):
                raise
            # the set-up was right before: a proxy replies for a server that is down, or a model is replaced
            raise UnavailableError(str(error), kind=error.kind) from error
        except (RejectedError, BadAnswerError, InternalError):
            return  # the endpoint answers, which is all a probe needs
        self.was_answered = True

    async def _doubt(self, since: float) -> str | None:
        """Why it is unknown whether the model sees; None if it does. Raises the errors of `prove`.

        `since` is the time of the loop at the first try.
        """
        try:
            return await self._look_and_compare()
        except UnreachableError:
            self._first_try_at = None  # without a connection no image can be answered, either
            raise
        except (UnavailableError, TransientError) as error:
            spent_s = asyncio.get_running_loop().time() - since
            if isinstance(error, UnavailableError):
                has_time = spent_s < self._patience_s
            else:
                self._failures += 1
                has_time = self._failures < TRIES and spent_s < self._deadline_s
            if has_time:
                raise
            return str(error)
        except RefusedOptionError:
            raise
        except FatalBackendError as error:
            # an option may be wrong for this question alone, and a firewall may refuse this picture alone
            if error.kind != "bad_config" and not (error.status == FORBIDDEN and error.by_status):
                raise
            return str(error)
        except (RejectedError, BadAnswerError, InternalError) as error:
            return str(error)

    async def _look_and_compare(self) -> str | None:
        """Ask about one colour; if the token counts do not prove that the model sees, ask about another."""
        first = await self._look(ORANGE, QUESTION, self._deadline_s)
        self.was_answered = True
        without = await self._tokens_without_picture()
        counts = _counts_of(first, without)
        if counts is Counts.PICTURE and not admits_blindness(first.text):
            return None
        if counts in (Counts.UNKNOWN, Counts.MAYBE_TEXT) and ORANGE.is_named(first.text):
            return None
        again = await self._look(PURPLE, LONGER_QUESTION)
        if PURPLE.is_named(again.text):
            return None
        return _compare(first, again, counts, without)

    async def _look(self, colour: Colour, text: str, deadline_s: float | None = None) -> Completion:
        """The answer about a picture of this colour; without a deadline, --timeout is its time limit."""
        picture = uniform(colour.rgb)
        request = replace(self._question, prompt=text, images=(picture,), deadline_s=deadline_s)
        return await self._backend.complete(request)

    async def _tokens_without_picture(self) -> int:
        """The tokens of the question without a picture; 0 if they are unknown."""
        try:
            answer = await self._backend.complete(replace(self._question, prompt=QUESTION, images=()))
        except BackendError:  # some servers refuse a question without a picture, which proves nothing
            return 0
        return answer.usage.input_tokens


def _counts_of(first: Completion, without: int) -> Counts:
    """What the token counts say: of the question with a picture, and `without` it."""
    tokens = first.usage.input_tokens
    if not tokens or not without:
        return Counts.UNKNOWN
    if tokens - without < LEAST_PICTURE_TOKENS:
        return Counts.NO_PICTURE
    as_text = len(uniform(ORANGE.rgb).data) / CHARACTERS_A_TOKEN
    return Counts.MAYBE_TEXT if tokens - without >= as_text else Counts.PICTURE


def _compare(first: Completion, again: Completion, counts: Counts, without: int) -> str | None:
    """The doubt after two answers that do not prove that the model sees; None if the counts prove it.

    Raises:
        FatalBackendError: the answers or the counts prove that it does not.
    """
    admission = next((each.text for each in (again, first) if admits_blindness(each.text)), None)
    tokens = first.usage.input_tokens
    if counts is Counts.PICTURE:
        return f"the model answers: {clean(again.text)}" if admits_blindness(again.text) else None
    if admission is not None:
        raise _blind(f"the model answers a question about a picture with: {clean(admission)}")
    if counts is Counts.UNKNOWN:
        return "the model did not name the colour of a picture, and the endpoint does not report tokens"
    if counts is Counts.MAYBE_TEXT:
        return (
            "the model did not name the colour of a picture, and the endpoint counts the "
            "picture's data as text"
        )
    if again.usage.input_tokens in (0, tokens):
        return "the endpoint counts the same tokens for any question"
    if ORANGE.is_nearly_named(first.text) and PURPLE.is_nearly_named(again.text):
        return (
            "the model named the colour of a picture only roughly, and the endpoint counts no "
            "tokens for pictures"
        )
    raise _blind(
        f"a question costs {tokens} tokens with a picture and {without} without it, and the model could not "
        "name the colour of a picture"
    )


def _blind(proof: str) -> FatalBackendError:
    return FatalBackendError(
        f"pictures do not reach the model: {proof}; {CHOOSE}, update the server, or go on without this test: "
        "--no-canary",
        kind="no_vision",
    )
