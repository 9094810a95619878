"""Compiles plain functions over arrays with numba, the extra `research`."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Generic, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class Kernel(Generic[P, R]):
    """`source` as machine code: one thread, without the interpreter's lock, strict IEEE arithmetic.

    The machine code is compiled at the first call and cached where numba may write.
    """

    source: Callable[P, R]
    _compiled: Any = field(default=None, init=False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of `source`; division by zero is IEEE's, not an error.

        Raises ModuleNotFoundError without the extra `research`.
        """
        if self._compiled is None:
            # Python's own division would check each divisor, and no loop over columns be vectors.
            compiled = import_module("numba").njit(nogil=True, error_model="numpy")(self.source)
            with suppress(RuntimeError):  # no folder can be written: compiled anew in each process
                compiled.enable_caching()
            self._compiled = compiled
        return cast("R", self._compiled(*args, **kwargs))
