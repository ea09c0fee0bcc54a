"""llama.cpp as an OpenAI-compatible server on a free port, with the demonstration model; prints its URL."""

import os
import signal
from pathlib import Path

import xllamacpp

MODELS = Path(__file__).parent.parent / "vlmbatch" / "backends" / "llama_cpp" / "demo_model"
SLOTS = 4
CONTEXT_PER_SLOT = 1024


def main() -> None:
    """Serve until a signal ends the process."""
    params = xllamacpp.CommonParams()
    params.model.path = str(MODELS / "pixie-q8_0.gguf")
    params.mmproj.path = str(MODELS / "mmproj-pixie-q8_0.gguf")
    params.n_parallel = SLOTS
    params.n_ctx = CONTEXT_PER_SLOT * SLOTS
    # its threads spin while they wait for each other, so one core is left to the client
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = max(1, (os.cpu_count() or 1) - 1)
    params.cache_ram_mib = 0  # it would answer the images of the round before from its cache
    params.verbosity = 0
    params.ui = False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
