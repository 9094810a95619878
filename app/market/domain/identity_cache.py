"""Cache of a function of one immutable object, for as long as the object lives."""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")
R = TypeVar("R")


def cached_while_alive(function: Callable[[T], R]) -> Callable[[T], R]:
    """Decorator: computes the result once per object, and drops it together with the object.

    The object compares by identity and supports weak references. Its result must not refer to it,
    or neither is ever released.
    """
    results: WeakKeyDictionary[T, R] = WeakKeyDictionary()

    @wraps(function)
    def cached(argument: T) -> R:
        try:
            return results[argument]
        except KeyError:
            result = results[argument] = function(argument)
            return result

    return cached
