"""Sends right and wrong requests to each route of the service: no reply is a 5xx, and each is as documented.

schemathesis makes the requests from /openapi.json. It needs an older jsonschema-rs than vlmbatch, so it has
an environment of its own: python .ci/check_openapi.py ENVIRONMENT/bin/schemathesis
"""

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from endpoint import Endpoint, Received
from redis_server import RedisServer
from serving import KEY, Served

# a generator cannot know which bytes are a picture, and which messages are one question
LEFT_OUT = "positive_data_acceptance"
EXAMPLES = "20"


def answer(request: Received) -> str:
    """What the model says: JSON if the request has a schema."""
    return '{"animal": "cat"}' if "format" in request.body else "a cat"


def check(schemathesis: str, served: Served, *more: str) -> None:
    """Run schemathesis against this service, and end with its exit code if it finds a flaw."""
    command = [
        schemathesis,
        "run",
        f"{served.url}/openapi.json",
        "--phases=examples,coverage,fuzzing",
        f"--max-examples={EXAMPLES}",
        "--generation-deterministic",
        "--continue-on-failure",
        "--warnings=off",
        "--no-color",
        f"--exclude-checks={','.join((LEFT_OUT, 'ignored_auth'))}",
        *more,
    ]
    with tempfile.TemporaryDirectory() as folder:  # schemathesis keeps files in its working folder
        done = subprocess.run(command, cwd=folder, check=False)
    bugs = [line for line in served.log if "a bug" in line]
    print("\n".join(bugs))
    if done.returncode or bugs:
        sys.exit(done.returncode or 1)


def main() -> None:
    """Check the service without keys, and then with keys and with a right one."""
    (schemathesis,) = sys.argv[1:]
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(Path(folder)) as redis,
        Endpoint(answer=answer) as endpoint,
    ):
        queue = {"queue": redis.url, "store": f"{folder}/store"}
        with Served(endpoint, **queue) as served:
            check(schemathesis, served)
        with Served(endpoint, service_key=f"a:{KEY}", **queue) as served:
            check(schemathesis, served, f"--header=Authorization: Bearer {KEY}")


if __name__ == "__main__":
    main()
