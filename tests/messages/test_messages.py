"""All texts that a user may read are listed in messages.txt, and keep the rules of plain English."""

import re
from collections.abc import Callable

import pytest
from messages.collector import LISTED, Message, as_list, collected

MOST_WORDS = 30
BANNED = (
    *("who", "whoever", "whom", "somebody", "someone", "nobody", "no one", "anybody", "anyone", "everybody"),
    *(
        "let go of",
        "stand beside",
        "stands beside",
        "reckon",
        "lest",
        "thereof",
        "therein",
        "hereby",
        "hence",
    ),
    *("thus", "whilst", "upon", "in vain", "shall", "ought", "albeit", "please", "kindly", "sorry", "oops"),
    *("unfortunately", "simply", "obviously", "utilise", "utilize", "color", "etc"),
)
VAGUE = ("invalid", "illegal", "bad")
ENDS_A_RUN = frozenset(
    (
        *("ConfigError", "require", "FatalBackendError", "RefusedOptionError", "UnavailableError"),
        *("UnreachableError", "MissingDependencyError", "OutputError", "ResourceError", "LockedError"),
    )
)
"""The errors that end a run: their messages say what to do."""
ORDERS = (
    *(
        "add",
        "allow",
        "append",
        "change",
        "check",
        "chmod",
        "choose",
        "convert",
        "correct",
        "create",
        "download",
    ),
    *("free", "get", "give", "include", "install", "keep", "leave", "look", "make", "move", "name", "pipe"),
    *(
        "raise",
        "remove",
        "rename",
        "run",
        "save",
        "set",
        "start",
        "take",
        "try",
        "turn",
        "type",
        "update",
        "use",
    ),
    *("wait", "write", "for example", "it must be", "vlmbatch", r"--\w+"),
)
TO_DO = re.compile(
    rf"([;:.,] |\bor |\bwith: |\n)(then |else |for [\w .+]+ |if [^;]+, )?({'|'.join(ORDERS)})\b"
    r"|must be |takes [\w {}…]+, not|\{\w*(hint|way_out|advice|instead)\w*(\(.*\))?\}",
    re.IGNORECASE,
)
"""What a user can do: an order, a command or an option; or the right value; or a hint from elsewhere."""

ERROR_ADVISES = "the error in it says what to do"
REASON_ADVISES = "the reason of the system, such as permission denied, says what to mend"
WITHOUT_ADVICE = {
    "{self._transport.place} is not {self._owner}": "a reason to look for another server",
    "{….away}; {told}": "the second part says what to do",
    "{flag(name)}: {error}": ERROR_ADVISES,
    "{place}: {key}{str(error).removeprefix(flag(name))}": ERROR_ADVISES,
    "{place}: {_unknown(key, value)}": "the second part says what to do",
    "option {name} is not known{nearest(name, known)}": "the second part says what to do",
    "{shown}: {error.strerror}": REASON_ADVISES,
    "{flag} {path} cannot be used: {error.strerror}": REASON_ADVISES,
    "--summary {self._path} cannot be written: {problem.strerror}": REASON_ADVISES,
}
"""Errors that end a run and have no advice of their own, with the reason."""
FOR_OTHERS = {
    "What colour fills this picture?": "a question to a model",
    "Describe this image.": "a question to a model",
    "Say yes.": "a question to a model",
    "What animal is this?": "an example of a question to a model",
    "Basic {token}": "a header",
    "Bearer {key}": "a header",
    "Can not decode content-encoding": "words of a library, to recognise its error",
    "Raw profile type exif": "a name in PNG files",
    "Multi-Frame Image": "a name in image files",
    "No such file": "words of the system",
    "Value error, ": "words of a library",
    "Pillow ": "a name",
    "Result(id=": "the repr of a value",
    "Parquet (after": "the name of a format, in the middle of a message",
}
"""The starts of texts that are not messages, with the reason."""
METRICS = frozenset(("counter", "gauge", "histogram", "Histogram", "GaugeMetricFamily"))
"""The help of a metric is a whole sentence, as is usual there."""


def has_banned_words(message: Message) -> bool:
    """No clever, archaic or polite word."""
    return re.search(rf"\b({'|'.join(BANNED)})\b", message.text, re.IGNORECASE) is not None


def has_a_long_sentence(message: Message) -> bool:
    """No sentence of more than 30 words."""
    return any(len(each.split()) > MOST_WORDS for each in re.split(r"[.;]\s|\n", message.text))


def ends_with_a_full_stop(message: Message) -> bool:
    """No full stop at the end, and no exclamation mark."""
    return re.search(r"(?<!\.)\.$|!", message.text) is not None


def is_vague(message: Message) -> bool:
    """A message that calls something invalid also says what is right, or why."""
    return re.search(rf"\b({'|'.join(VAGUE)})\b[^;:,]*$", message.text, re.IGNORECASE) is not None


def starts_with_a_capital(message: Message) -> bool:
    """The first word is in lower case, or is a name such as Ollama, TIFF or OLLAMA_HOST."""
    return re.match(r"(?!Ollama\b)[A-Z][a-z]+\b", message.text) is not None


def has_no_advice(message: Message) -> bool:
    """An error that ends a run says what to do."""
    return message.kind in ENDS_A_RUN and TO_DO.search(message.text) is None


RULES = (
    has_banned_words,
    has_a_long_sentence,
    ends_with_a_full_stop,
    is_vague,
    starts_with_a_capital,
    has_no_advice,
)
BAD_MESSAGES = {
    has_banned_words: "the key is wrong; please ask somebody",
    has_a_long_sentence: "a " * 31,
    ends_with_a_full_stop: "the disk is full.",
    is_vague: "the value is invalid",
    starts_with_a_capital: "The disk is full",
    has_no_advice: "the disk is full",
}


def is_excepted(message: Message) -> bool:
    """Whether a table above has the reason why this text may break a rule."""
    is_for_others = message.kind in METRICS or message.text.startswith(tuple(FOR_OTHERS))
    return is_for_others or message.text in WITHOUT_ADVICE


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return collected()


def test_the_list_of_messages_is_up_to_date(messages: list[Message]) -> None:
    """Each message is in messages.txt. Read each new one as a user in a hurry, then refresh the list."""
    listed = LISTED.read_text(encoding="utf-8")
    assert as_list(messages) == listed, "type: python tests/messages/collector.py; then read what is new"


@pytest.mark.parametrize("breaks", RULES)
def test_each_message_keeps_the_rule(messages: list[Message], breaks: Callable[[Message], bool]) -> None:
    """Each message keeps the rule, or is an exception with a reason; a bad message is found."""
    broken = [each for each in messages if breaks(each) and not is_excepted(each)]
    assert not broken, f"{breaks.__doc__}\n{as_list(broken)}"
    assert breaks(Message(file="any.py", kind="ConfigError", text=BAD_MESSAGES[breaks]))


def test_each_exception_is_needed(messages: list[Message]) -> None:
    """Each exception is about a message that breaks a rule."""
    broken = [each.text for each in messages if any(breaks(each) for breaks in RULES)]
    unused = [start for start in FOR_OTHERS if not any(text.startswith(start) for text in broken)]
    assert unused + [text for text in WITHOUT_ADVICE if text not in broken] == []
