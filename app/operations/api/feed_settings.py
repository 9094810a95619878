"""The settings of the streaming feed, as they are read and written over HTTP."""

from pydantic import Field

from app.foundation.http.request_body import Body
from app.foundation.http.schemas import Out


class FeedOut(Out):
    """Of the streaming feed; seconds unless said otherwise."""

    tickers: int = Field(description="A quote is told of or confirmed so often.")
    contracts: int = Field(description="In streaming mode, in place of `cadences.market`.")
    books: int = Field(description="In streaming mode, in place of `cadences.books`.")
    fallback_after: int = Field(description="Without a stream for so long it polls instead.")
    candidates: int = Field(description="Of the best, with books and marks besides the members.")
    move_volatilities: float = Field(
        description="A member that has moved by so many of its hourly volatilities since it was "
        "scored is scored again; 0: never."
    )
    move_bp: float = Field(description="The same in basis points; 0: never.")
    rescoring_pause: int = Field(description="Between two scorings that prices bring about.")


class FeedIn(Body):
    tickers: int | None = None
    contracts: int | None = None
    books: int | None = None
    fallback_after: int | None = None
    candidates: int | None = None
    move_volatilities: float | None = None
    move_bp: float | None = None
    rescoring_pause: int | None = None
