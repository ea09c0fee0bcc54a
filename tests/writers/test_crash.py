"""An output after its process was killed or its disk was full, and the run that continues it."""

from pathlib import Path

from written_results import records, start_python, write_missing

IMAGES = [f"photos/{number}.jpg" for number in range(1500)]

KILLED_AGAIN_AND_AGAIN = """
import asyncio, os, pathlib, random, signal, sys
from written_results import write_missing

output, images = pathlib.Path(sys.argv[1]), sys.argv[2].split()
chance = random.Random(20)
output.touch()

def live():
    asyncio.run(write_missing(output, images, "long " * 2000))
    os._exit(0)

kills = 0
while kills < 20:
    goal = output.stat().st_size + chance.randrange(200_000)
    child = os.fork()
    if child == 0:
        live()
    ended = 0
    while not ended and output.stat().st_size < goal:
        ended, _ = os.waitpid(child, os.WNOHANG)
    if ended:
        break
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills += 1
print(kills)
"""

LIMITED = """
import asyncio, resource, signal, sys
from written_results import answered, PLAIN, RUN
from vlmbatch.writers import JsonlWriter

async def main(output, images):
    async with JsonlWriter(output, PLAIN) as writer:
        await writer.begin(RUN, {})
        writes = (writer.write(answered(image, "long " * 100)) for image in images)
        for image, error in zip(images, await asyncio.gather(*writes, return_exceptions=True)):
            print(f"{type(error).__name__}: {error}" if error else image)

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
asyncio.run(main(sys.argv[1], sys.argv[2].split()))
"""


async def test_twenty_kills_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    """A run that is killed at random moments and restarted ends with every image exactly once."""
    output = tmp_path / "out.jsonl"
    with start_python(KILLED_AGAIN_AND_AGAIN, output, " ".join(IMAGES)) as process:
        printed, _ = process.communicate()
    assert int(printed) > 10
    await write_missing(output, IMAGES)
    assert sorted(record["id"] for record in records(output)) == sorted(IMAGES)


async def test_a_full_disk_stops_at_a_whole_line(tmp_path: Path) -> None:
    """On a full disk the file holds exactly the accepted lines, and the next run continues it."""
    output = tmp_path / "out.jsonl"
    with start_python(LIMITED, output, " ".join(IMAGES)) as process:
        printed = (process.communicate())[0].splitlines()
    accepted = [line for line in printed if line in IMAGES]
    (error,) = set(printed) - set(accepted)
    assert error.startswith(f"OutputError: cannot write to {output}: the limit on the size of a file")
    assert "run the same command again" in error
    assert 10 < len(accepted) < len(IMAGES)
    assert [record["id"] for record in records(output)] == accepted
    assert await write_missing(output, IMAGES) == [image for image in IMAGES if image not in accepted]
    assert sorted(record["id"] for record in records(output)) == sorted(IMAGES)
