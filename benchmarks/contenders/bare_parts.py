"""The bare parts, for the limit: decode, shrink, encode, base64, one write to a socket, one read, one line.

No client library, only the HTTP bytes that have to be sent, no concurrency, no checks. It needs an endpoint
that answers at once, since it waits for each answer.
"""

import json
import socket
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image
from task import MAX_SIZE, PROMPT, QUALITY, Task, line, main


def prepare(file: Path, *, as_is: bool) -> bytes:
    """Decode, at a smaller size if JPEG allows it, shrink and encode.

    With `as_is`, a small image is sent as it is, and only decoded in the fastest way, to prove that it is
    whole.
    """
    data = file.read_bytes()
    with Image.open(BytesIO(data)) as image:
        scale = min(MAX_SIZE / max(image.size), 1)
        if as_is and scale == 1:
            image.draft("RGB", (1, 1))
            image.load()
            return data
        size = (round(image.width * scale), round(image.height * scale))
        if scale < 1:
            image.draft("RGB", (size[0] * 3 // 2, size[1] * 3 // 2))
        small = image.resize(size, Image.Resampling.BICUBIC)
    out = BytesIO()
    small.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def ask_all(task: Task) -> None:
    """Send all images."""
    parts = urlsplit(task.url)
    message = {"role": "user", "content": PROMPT, "images": ["*"]}
    before, after = json.dumps({"model": task.model, "stream": False, "messages": [message]}).split("*")
    with (
        socket.create_connection((parts.hostname or "", parts.port or 80)) as line_out,
        task.output.open("w") as records,
    ):
        for file in task.files:
            body = before.encode() + b64encode(prepare(file, as_is=task.as_is)) + after.encode()
            line_out.sendall(b"POST /api/chat HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            answer = line_out.recv(65_536).partition(b"\r\n\r\n")[2]
            records.write(line(file, json.loads(answer)["message"]["content"]))


if __name__ == "__main__":
    main(ask_all)
