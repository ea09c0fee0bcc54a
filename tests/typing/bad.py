"""Code of a user with a mistake on each line that a comment marks; each type checker finds these alone."""

# pyright: strict

from pydantic import BaseModel

from vlmbatch import open_session, run_batch


class Animal(BaseModel):
    """One animal."""

    name: str


run_batch("photos", promt="Describe it.")  # mistake: a name
run_batch("photos", max_size="large")  # mistake: a word
run_batch("photos", max_size=76.8)  # mistake: a number of another kind
run_batch("photos", backend="olama")  # mistake: a choice
run_batch("photos", dry_run=True)  # mistake: an option of the command
run_batch("photos", output=None)  # mistake: no file
run_batch("photos", schema=Animal(name="cat"))  # mistake: an instance
run_batch("photos", schema=int)  # mistake: a class of another kind
run_batch(["photos"])  # mistake: a list
for result in run_batch("photos", schema=Animal):
    result.parsed.name.upper()  # mistake: a failure has no parsed answer
    result.raise_for_failure().parsed.colour.upper()  # mistake: no such field
    result.text.upper()  # mistake: a failure has no text
open_session(output="o.jsonl")  # mistake: an option of a run
open_session(model="llava").question(prompt="Describe it.")  # mistake: a session that is not open
with open_session(model="llava") as session:
    session.question(modle="llava")  # mistake: a name
    session.question(model="llava")  # mistake: an option of the session
    session.answer("photos/cat.jpg", "Describe it.")  # mistake: a text in the place of the question
    for each in session.answer_many([("photos/cat.jpg", session.question(schema=Animal))]):
        number: int = each.raise_for_failure().parsed  # mistake: an instance is no number


async def main() -> None:
    """Open a session in a wrong way."""
    await open_session(model="llava")  # mistake: it is opened by async with
