"""The images in a request: base64, data URLs and uploaded files."""

import binascii
import re
from pathlib import PurePosixPath, PureWindowsPath

import pybase64

from vlmbatch.imaging.formats import HEAD_BYTES, describe, looks_like_image
from vlmbatch.observers.format import clean
from vlmbatch.service.problems import Problem

LONGEST_NAME = 200
LONGEST_HEAD = 500
"""Characters of a data URL before its base64."""
_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?P<parameters>(;[\w.+=-]+)*),", re.ASCII)
_SPACE = b" \t\r\n"


def decoded(text: str, field: str) -> bytes:
    """The bytes of an image in base64 or in a data URL; `field` names the place for messages.

    Raises:
        Problem: it is not base64, or not an image.
    """
    start = 0
    if text.startswith("data:"):
        head = _DATA_URL.match(text[:LONGEST_HEAD])
        if head is None or not head["parameters"].endswith(";base64"):
            raise Problem(
                "bad_request", f"{field} is a data URL without base64; write data:image/jpeg;base64,..."
            )
        start = head.end()
    coded = text[start:]
    if not coded:
        raise Problem("bad_request", f"{field} is empty; write the image in base64")
    try:
        # the command base64 writes lines
        data = pybase64.b64decode(coded.encode("ascii").translate(None, _SPACE), validate=True)
    except (binascii.Error, ValueError) as error:  # the second one for a text that is not ASCII
        raise Problem(
            "bad_request",
            f"{field} is not base64: a character or the padding is wrong; encode the bytes of the image file",
        ) from error
    return checked(data, field)


def checked(data: bytes, field: str) -> bytes:
    """These bytes, if they begin like an image file.

    Raises:
        Problem: they are empty, or a file of another kind.
    """
    if not data:
        raise Problem("bad_request", f"{field} is empty; send the bytes of an image file")
    head = data[:HEAD_BYTES]
    if not looks_like_image(head):
        raise Problem(
            "not_an_image",
            f"{field} is not an image: it is {describe(head)}; send a JPEG, PNG, WebP or HEIC file",
        )
    return data


def safe_name(name: str | None, otherwise: str) -> str:
    """The name of an uploaded file without folders and control characters, for the id of its record."""
    bare = PurePosixPath(PureWindowsPath(name or "").name).name
    return clean(bare).strip()[:LONGEST_NAME] or otherwise
