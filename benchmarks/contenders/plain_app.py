"""A service as tutorials show it, for `uvicorn plain_app:app`: it decodes the base64 and asks Ollama.

The handler with `async def` waits for the answer in the event loop, as beginners write it. FastAPI runs the
one with `def` in a thread, 40 at once.
"""

import base64

import ollama
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Question(BaseModel):
    """A question about an image in base64."""

    prompt: str
    image_base64: str


def ask(question: Question) -> dict[str, str | None]:
    """Send one image and return the answer."""
    image = base64.b64decode(question.image_base64)
    message = {"role": "user", "content": question.prompt, "images": [image]}
    return {"result": ollama.chat(model="slots", messages=[message]).message.content}


@app.post("/async/analyze")
async def analyze(question: Question) -> dict[str, str | None]:
    """Answer in the event loop."""
    return ask(question)


@app.post("/def/analyze")
def analyze_in_a_thread(question: Question) -> dict[str, str | None]:
    """Answer in a thread."""
    return ask(question)
