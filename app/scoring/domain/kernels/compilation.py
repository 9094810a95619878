"""Turns a plain function over arrays into machine code at its first call, and keeps it on disk."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Generic, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class Kernel(Generic[P, R]):
    """`source` compiled: one thread, without the interpreter's lock, strict IEEE arithmetic.

    numba is imported at the first call: a process that never scores does without its 80 MB. The
    machine code is kept beside the source, or where numba may write; where it may not, each
    process compiles anew (`is_kept` is False) until `keep_in` names a place. What is kept goes by
    the source's file alone: whoever changes the options here has to touch those files too.
    """

    source: Callable[P, R]
    is_kept: bool = field(default=False, init=False)
    _compiled: Any = field(default=None, init=False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What `source` gives; division by zero is IEEE's, not an error."""
        return cast("R", self._dispatcher()(*args, **kwargs))

    def has_place(self) -> bool:
        """Whether machine code can be kept; nothing is compiled for the answer."""
        self._dispatcher()
        return self.is_kept

    def keep_in(self, folder: str) -> None:
        """Where to keep the machine code of this kernel and of those that are asked for later."""
        dispatcher = self._dispatcher()
        import_module("numba").config.CACHE_DIR = folder
        self.is_kept = _has_place(dispatcher)

    def was_loaded(self) -> bool:
        """Whether the machine code came from disk; False before the first call."""
        return bool(sum(self._dispatcher().stats.cache_hits.values()))

    def _dispatcher(self) -> Any:
        if self._compiled is None:
            # Python's own division would check each divisor, and no loop over columns be vectors.
            dispatcher = import_module("numba").njit(nogil=True, error_model="numpy")(self.source)
            self.is_kept = _has_place(dispatcher)
            self._compiled = dispatcher
        return self._compiled


def _has_place(dispatcher: Any) -> bool:
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # numba: no locator available
        return False
    return True
