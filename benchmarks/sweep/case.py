"""One synthesised file, the second decoders, and the verdict on what is sent of it."""

from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import imagecodecs

from sweep.pictures import Picture, difference
from vlmbatch.config.groups import ImageOptions
from vlmbatch.errors import ImageError
from vlmbatch.images import PreparedImage, unread
from vlmbatch.imaging.prepare import prepare

_SCALED = "were scaled from black to white"
"""This warning does not excuse a different picture: the truth is scaled, too."""
OPTIONS = ImageOptions(max_size=0, quality=100)
Decoder = Callable[[bytes], Picture]
"""A second decoder, which shares no code with Pillow; raises any exception if it cannot read the file."""
Preparer = Callable[[bytes, ImageOptions], PreparedImage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A file, the picture that was put into it, and the decoders that can confirm it.

    Pillow decodes samples to 8 bits; `step` is how many of sRGB one of its steps is: 1, or 2 for HDR and for
    linear light, where dark tones have few steps.
    """

    format: str
    name: str
    data: bytes
    truth: Picture
    decoders: tuple[Decoder, ...]
    step: float = 1.0


Cases = Iterator[Case]


class Verdict(StrEnum):
    """How a file ended; the values are the heads of the table."""

    RIGHT = "right"
    RIGHT_WARNED = "right, with a warning"
    WARNED = "different, with a warning"
    REFUSED = "refused by name"
    NO_REFERENCE = "no reference"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The verdict on the file `name` of a format, with the reason."""

    format: str
    name: str
    verdict: Verdict
    is_confirmed: bool
    """Whether a second decoder reads the picture that was put into the file."""
    reason: str = ""


def outcome(case: Case, preparer: Preparer = prepare) -> Outcome:
    """Prepare the file and compare what is sent with the truth and with the second decoders."""
    seconds = [_read(decoder, case) for decoder in case.decoders]
    pictures = [second for second in seconds if not isinstance(second, str)]
    right = [second for second in pictures if difference(second, case.truth).is_within(case.step)]
    verdict, reason = _verdict(case, preparer, right, pictures)
    notes = [second for second in seconds if isinstance(second, str)] if not right else []
    reason = "; ".join(filter(None, (reason, *notes)))
    return Outcome(
        format=case.format, name=case.name, verdict=verdict, is_confirmed=bool(right), reason=reason
    )


def _read(decoder: Decoder, case: Case) -> Picture | str:
    """What a second decoder sees, or why it sees nothing."""
    try:
        return decoder(case.data)
    except Exception as error:  # noqa: BLE001  # decoders raise anything
        return f"{decoder.__name__}: {' '.join(str(error).split()) or type(error).__name__}"


def _verdict(
    case: Case, preparer: Preparer, right: list[Picture], seconds: list[Picture]
) -> tuple[Verdict, str]:
    """The verdict and its reason; `right` are those pictures of second decoders that are like the truth."""
    try:
        prepared = preparer(case.data, OPTIONS)
    except ImageError as error:
        return Verdict.REFUSED, str(error)
    except Exception as error:  # noqa: BLE001  # it would end a run
        return Verdict.WRONG, f"{type(error).__name__}: {error}"
    sent = imagecodecs.jpeg8_decode(b64decode(prepared.data))
    warnings = [warning for warning in prepared.warnings if warning not in unread(prepared.frames)]
    if _is_like_one(sent, [case.truth, *right], case.step):
        return (Verdict.RIGHT_WARNED if warnings else Verdict.RIGHT), "; ".join(warnings)
    if any(_SCALED not in warning for warning in warnings):
        return Verdict.WARNED, "; ".join(warnings)
    apart = str(difference(sent, case.truth))
    if not right and _is_like_one(sent, seconds, case.step):
        return Verdict.NO_REFERENCE, f"a second decoder sees what is sent, not what was written: {apart}"
    return Verdict.WRONG, apart


def _is_like_one(picture: Picture, others: list[Picture], step: float) -> bool:
    return any(difference(picture, other).is_within(step) for other in others)
