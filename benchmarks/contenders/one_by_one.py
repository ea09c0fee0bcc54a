"""A loop: prepare one image, send it, write the answer, go on with the next."""

from plain import over_ollama, over_openai
from preparing import text, usual
from task import Task, line, main


def ask_all(task: Task) -> None:
    """Process all images."""
    ask = over_ollama(task) if task.wire == "ollama" else over_openai(task)
    with task.output.open("w") as records:
        for file in task.files:
            records.write(line(file, ask(text(usual(file)))))
            records.flush()


if __name__ == "__main__":
    main(ask_all)
