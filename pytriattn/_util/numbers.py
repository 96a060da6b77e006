"""Numbers that users give, numpy's included."""

from __future__ import annotations

import operator

__all__ = ["whole_number"]


def whole_number(name: str, value: object, error: type[Exception]) -> int:
    """Return a whole number as Python's own int.

    Args:
        name: the name of the setting, for the message.
        value: the number.
        error: the class of the error to raise.

    Raises:
        error: the value is no whole number.
    """
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise error(f"{name} is {value!r}, it must be a whole number") from None
