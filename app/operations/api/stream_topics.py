"""Names of topics, as clients of the stream write them."""

from collections.abc import Callable, Iterable
from typing import Annotated, Final

from pydantic import Field

from app.foundation.errors import Code
from app.foundation.http.errors import BorderError
from app.market.domain.symbols import SymbolEntry
from app.operations.domain.event_codec import Topic
from app.operations.services.event_messages import TICKER
from app.operations.services.event_subscription import Reader

TopicText = Annotated[str, Field(min_length=1, max_length=80, examples=["portfolio_change"])]
_PREFIX: Final = f"{TICKER}:"
NAMES: Final = ", ".join(f"`{topic.value}`" for topic in Topic) + f", `{_PREFIX}SYMBOL`"


def asked(
    names: Iterable[str], resolve: Callable[[str], SymbolEntry]
) -> tuple[frozenset[Topic], frozenset[str]]:
    """The topics and the symbols of `ticker:SYMBOL`, which may be in any spelling.

    Raises BorderError (validation_failed) for a name that is no topic, RefusedError for a symbol
    that is not known.
    """
    topics: set[Topic] = set()
    symbols: set[str] = set()
    for at, name in enumerate(names):
        if name.startswith(_PREFIX):
            symbols.add(resolve(name.removeprefix(_PREFIX)).symbol)
        elif name in set(Topic):
            topics.add(Topic(name))
        else:
            errors = [(("topics", at), "enum")]
            raise BorderError(Code.VALIDATION_FAILED, f"The topics are {NAMES}.", errors=errors)
    return frozenset(topics), frozenset(symbols)


def topic_names(reader: Reader) -> list[str]:
    """What a reader has asked for, in the standard spelling."""
    return sorted([*reader.topics, *(_PREFIX + symbol for symbol in reader.symbols)])
