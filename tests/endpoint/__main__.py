"""The loopback server as a command: `cd tests && python -m endpoint --port 11434 --mode 429:7`."""

import argparse
import contextlib
import time

from endpoint.modes import MODES
from endpoint.server import Endpoint


def main() -> None:
    """Run the server until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument(
        "--mode", default="ok", help="mode of all replies, one of: " + " ".join(sorted(MODES))
    )
    parser.add_argument("--slots", type=int, help="how many requests are processed at once (default: all)")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--api-key", help="the key that requests need")
    parser.add_argument("--blind", action="store_true", help="hide the pictures from the model")
    given = parser.parse_args()
    with Endpoint(
        script=lambda request: given.mode,
        port=given.port,
        slots=given.slots,
        delay=given.delay,
        api_key=given.api_key,
        blind=given.blind,
    ) as endpoint:
        print(endpoint.url, flush=True)  # noqa: T201  # the only place where the user sees the port
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main()
