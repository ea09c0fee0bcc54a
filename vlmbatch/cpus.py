"""How many CPUs this process may use."""

import os
import sys


def usable_cpus() -> int:
    """Those that the system leaves to this process (taskset, Slurm, cpusets), where it tells; at least 1."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
