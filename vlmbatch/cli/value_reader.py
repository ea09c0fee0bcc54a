"""Reads the values of a command line without pydantic, which typer imports for them since version 0.29.

Importing pydantic and building its schema of each option take a sixth of the CPU time of a small run. typer
and pydantic still read the values of options that are not texts and have no parser: for example of a flag
that an environment variable sets.
"""

from collections.abc import Callable
from typing import Any

from typer.core import TyperArgument, TyperOption


def without_pydantic(params: list[Any]) -> list[Any]:
    """Make these parameters of a command read their values with `ValueReader`; returns the parameters.

    typer makes the parameters, and has no option for their class. So this function changes their class.
    """
    for param in params:
        if type(param) is TyperOption:
            param.__class__ = PlainOption
        elif type(param) is TyperArgument:
            param.__class__ = PlainArgument
    return params


class PlainOption(TyperOption):
    """An option that reads its value with `ValueReader`."""

    def get_runtime_param(self) -> Any:
        """The reader of the value. typer before 0.29 does not call this method, and needs no pydantic."""
        return ValueReader(super().get_runtime_param)


class PlainArgument(TyperArgument):
    """An argument that reads its value with `ValueReader`."""

    def get_runtime_param(self) -> Any:
        """See `PlainOption`."""
        return ValueReader(super().get_runtime_param)


class ValueReader:
    """Reads one value or a list of values, with the parser of the parameter or as texts."""

    def __init__(self, typer_reader: Callable[[], Any]) -> None:
        """`typer_reader` returns the reader of typer, which imports pydantic."""
        self._typer_reader = typer_reader

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value of the parameter; None or an empty list if it has none."""
        kind = param.type_descriptor
        is_list = param.multiple or param.nargs == -1
        if value is None:
            return [] if is_list else None
        parse = kind.parameter_info.parser
        is_plain = parse is not None or kind.annotation in (str, list[str])
        if not is_plain or (is_list and isinstance(value, str)):
            return self._typer_reader().coerce(value, param, ctx)
        parse = parse or str
        return [parse(item) for item in value] if is_list else parse(value)
