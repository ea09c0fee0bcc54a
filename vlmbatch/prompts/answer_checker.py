"""The process that checks answers against JSON Schemas. It is a script of its own, started by checking.py.

It reads one JSON line for each check and writes two: whether each answer matches, and then why not, which
may take much longer to find. The kernel ends it when a check takes more processor time than allowed, whatever
part of the validator is at work; a check that overflows its stack ends it, too.
"""

import faulthandler
import json
import signal
import sys
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import islice
from typing import Any

PROCESSOR_S = 1.0
"""A check may take this much processor time; a usual one takes a millionth."""
CLOCK_S = 5.0
"""The limit on Windows, which counts all time and not only that of the processor."""
MEMORY = 1 << 30
LONGEST_MESSAGE = 240
MOST_ERRORS = 20
"""The error to report is chosen from this many."""
MOST_SCHEMAS = 16

_set_timer: Any = getattr(signal, "setitimer", None)
_PROCESSOR_TIMER: int = getattr(signal, "ITIMER_PROF", 0)

Validators = dict[str, Any]


def main() -> None:
    """Answer each line of standard input."""
    with suppress(ImportError):  # Windows has no such limits
        _limit_memory(import_module("resource"))
    validators: Validators = {}
    for line in sys.stdin:
        _limit_time()
        _check(json.loads(line), validators)
        _end_limit()


def _limit_memory(resource: Any) -> None:
    with suppress(ValueError, OSError):  # the limit may be lower already; macOS has none
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_time() -> None:
    """Let the process end if the check takes long: by SIGPROF, which it does not handle, or with code 1."""
    if _set_timer is not None:
        _set_timer(_PROCESSOR_TIMER, PROCESSOR_S)
    else:
        faulthandler.dump_traceback_later(CLOCK_S, exit=True)


def _end_limit() -> None:
    if _set_timer is not None:
        _set_timer(_PROCESSOR_TIMER, 0)
    else:
        faulthandler.cancel_dump_traceback_later()


def _check(request: dict[str, Any], validators: Validators) -> None:
    """Write for each answer whether it matches, then its first mismatch and the place, or null.

    If the schema cannot be used, both lines are the reason.
    """
    schema, answers = request["schema"], request["answers"]
    flaw = None if schema in validators else _compile(schema, validators)
    if flaw is not None:
        _write(flaw)
        _write(flaw)
        return
    validator = validators[schema]
    matching = [_matches(validator, answer) for answer in answers]
    _write(matching)
    pairs = zip(matching, answers, strict=True)
    _write([None if matches else _flaw(validator, answer) for matches, answer in pairs])


def _write(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _compile(schema: str, validators: Validators) -> str | None:
    """Keep the schema's validator; returns what is wrong with the schema."""
    import jsonschema_rs

    told = json.loads(schema)
    validator_for = partial(jsonschema_rs.validator_for, validate_formats=False, offline=True)
    try:
        try:
            validator = validator_for(told)
        except jsonschema_rs.ValidationError as error:
            if "meta-schema" not in error.message or "$schema" not in told:
                raise
            del told["$schema"]  # an unknown draft: read as the newest one
            validator = validator_for(told)
    except jsonschema_rs.ValidationError as error:
        return _told(error).replace('is not a "regex"', "is not a regular expression that can be checked")
    except ValueError as error:  # a lone surrogate
        return _cut(str(error))
    if len(validators) == MOST_SCHEMAS:
        validators.pop(next(iter(validators)))
    validators[schema] = validator
    return None


def _matches(validator: Any, answer: Any) -> bool:
    try:
        return bool(validator.is_valid(answer))
    except ValueError:  # a text that is not Unicode; its flaw says so
        return False


def _flaw(validator: Any, answer: Any) -> str:
    try:
        errors = list(islice(validator.iter_errors(answer), MOST_ERRORS))
    except ValueError as error:
        return _cut(str(error))
    if not errors:
        return "$: it does not match"
    return _told(min(errors, key=lambda error: len(error.instance_path)))


def _told(error: Any) -> str:
    """The place and the message of an error, or of the branch of anyOf or oneOf that comes closest."""
    branches = getattr(error.kind, "context", None)
    if branches:
        close = [branch[0] for branch in branches if branch and _is_close(branch[0], error)]
        if len(close) == 1:
            return _told(close[0])
    return f"{_place(error.instance_path)}: {_cut(error.message)}"


def _is_close(inner: Any, outer: Any) -> bool:
    """Whether a branch with this first error is of the right type, and only a part of it does not match."""
    deeper = len(inner.instance_path) > len(outer.instance_path)
    return deeper or inner.kind.name not in ("type", "const", "enum")


def _place(path: list[str | int]) -> str:
    steps = (f".{step}" if isinstance(step, str) and step.isidentifier() else f"[{step!r}]" for step in path)
    return _cut("$" + "".join(steps))


def _cut(text: str) -> str:
    """The text without its middle if it is long: a message begins with the value and ends with the reason."""
    half = LONGEST_MESSAGE // 2
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:half]}...{text[-half:]}"


if __name__ == "__main__":
    sys.path.extend(json.loads(sys.argv[1]))
    main()
