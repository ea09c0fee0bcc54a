"""vlmbatch in this process, so that it is measured like the other contenders."""

import asyncio

from task import MAX_SIZE, MAX_TOKENS, PROMPT, QUALITY, TEMPERATURE, Task, main

from vlmbatch import run_batch


async def run(task: Task) -> None:
    """Process all images, and check each result."""
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
    """Process all images."""
    asyncio.run(run(task))


if __name__ == "__main__":
    main(ask_all)
