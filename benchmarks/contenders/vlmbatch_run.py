"""vlmbatch, in this process, so that it can be measured as the others are."""

import asyncio

from task import MAX_SIZE, MAX_TOKENS, PROMPT, QUALITY, TEMPERATURE, Task, main

from vlmbatch import run_batch


async def run(task: Task) -> None:
    """Ask about all images, and look at each result."""
    batch = run_batch(
        task.folder,
        output=str(task.output),
        backend=task.wire,
        base_url=task.url,
        model=task.model,
        concurrency=task.concurrency,
        prompt=PROMPT,
        max_tokens=MAX_TOKENS,
        temperature=TEMPERATURE,
        max_size=MAX_SIZE,
        quality=QUALITY,
    )
    async for result in batch:
        assert result.ok, result


def ask_all(task: Task) -> None:
    """Ask about all images."""
    asyncio.run(run(task))


if __name__ == "__main__":
    main(ask_all)
