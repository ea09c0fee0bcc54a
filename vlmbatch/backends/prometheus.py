"""Reads out of a server's /metrics how many requests it works on and how many wait there."""

import re

from vlmbatch.records import Load

GAUGES = (
    ("vllm:num_requests_running", "vllm:num_requests_waiting"),
    ("sglang:num_running_reqs", "sglang:num_queue_reqs"),
    ("llamacpp:requests_processing", "llamacpp:requests_deferred"),
)
"""What servers call the two numbers; each may stand there once for every engine or model."""
_SAMPLE = re.compile(
    r"^([a-z]+:\w+)(?:\{.*\})?[ \t]+(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\b", re.MULTILINE | re.IGNORECASE
)


def load_in(text: str) -> Load | None:
    """What Prometheus' text format tells, all engines together; None where neither number stands there."""
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        sums[name] = sums.get(name, 0.0) + float(value)
    for running, waiting in GAUGES:
        if running in sums and waiting in sums:
            return Load(running=round(sums[running]), waiting=round(sums[waiting]))
    return None
