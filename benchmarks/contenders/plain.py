"""The plain approach: prepare all images, then one task an image in one gather, over a client in threads.

Many scripts are like it, and vlmbatch started from this design. It writes after the last answer. Images are
passed as base64, as tutorials do. The ollama package decodes that once more to check it; with `--as-bytes` it
gets the JPEG and does not.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from preparing import text, usual
from task import MAX_TOKENS, PROMPT, TEMPERATURE, Task, line, main


def over_ollama(task: Task) -> Callable[[str | bytes], str | None]:
    """Return a function that sends one image with the ollama package."""
    import httpx
    import ollama  # here, so that only one of the two packages costs time and memory

    # httpx allows 100 connections by default
    client = ollama.Client(task.url, limits=httpx.Limits(max_connections=task.concurrency))
    options = {"temperature": TEMPERATURE, "num_predict": MAX_TOKENS}

    def ask(picture: str | bytes) -> str | None:
        messages = [{"role": "user", "content": PROMPT, "images": [picture]}]
        return client.chat(model=task.model, messages=messages, options=options).message.content

    return ask


def over_openai(task: Task) -> Callable[[str | bytes], str | None]:
    """Return a function that sends one image with the openai package."""
    import openai

    client = openai.OpenAI(base_url=task.openai_url, api_key="none")

    def ask(picture: str | bytes) -> str | None:
        assert isinstance(picture, str), "only the ollama package takes bytes"
        url = {"url": f"data:image/jpeg;base64,{picture}"}
        content = [{"type": "text", "text": PROMPT}, {"type": "image_url", "image_url": url}]
        answer = client.chat.completions.create(
            model=task.model,
            messages=[{"role": "user", "content": content}],
            temperature=TEMPERATURE,
            max_tokens=MAX_TOKENS,
        )
        return answer.choices[0].message.content

    return ask


async def gather(task: Task) -> None:
    """Prepare, send, write: one after the other, each for all images."""
    files = task.files
    encode = bytes if task.as_bytes else text
    pictures = [encode(usual(file, as_is=task.as_is)) for file in files]
    ask = over_ollama(task) if task.wire == "ollama" else over_openai(task)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(task.concurrency) as threads:
        texts = await asyncio.gather(*(loop.run_in_executor(threads, ask, picture) for picture in pictures))
    with task.output.open("w") as records:
        records.writelines(line(file, text) for file, text in zip(files, texts, strict=True))


def ask_all(task: Task) -> None:
    """Process all images."""
    asyncio.run(gather(task))


if __name__ == "__main__":
    main(ask_all)
