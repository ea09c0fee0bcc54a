"""A careful script: AsyncOpenAI behind a semaphore, images prepared in threads, answers written at once."""

import asyncio
from pathlib import Path
from typing import TextIO

from openai import AsyncOpenAI
from preparing import better, text
from task import MAX_TOKENS, PROMPT, TEMPERATURE, Task, line, main


async def ask(client: AsyncOpenAI, task: Task, file: Path, records: TextIO) -> None:
    """Prepare one image, send it and write the answer."""
    picture = await asyncio.to_thread(better, file)
    url = {"url": f"data:image/jpeg;base64,{text(picture)}"}
    content = [{"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": url}]
    answer = await client.chat.completions.create(
        model=task.model,
        messages=[{"role": "user", "content": content}],
        temperature=TEMPERATURE,
        max_tokens=MAX_TOKENS,
    )
    records.write(line(file, answer.choices[0].message.content))
    records.flush()


async def gather(task: Task) -> None:
    """Process all images, `task.concurrency` at once."""
    slots = asyncio.Semaphore(task.concurrency)

    async def one(file: Path) -> None:
        async with slots:
            await ask(client, task, file, records)

    with task.output.open("w") as records:
        async with AsyncOpenAI(base_url=task.openai_url, api_key="none") as client:
            await asyncio.gather(*(one(file) for file in task.files))


def ask_all(task: Task) -> None:
    """Process all images."""
    asyncio.run(gather(task))


if __name__ == "__main__":
    main(ask_all)
