"""Market of the local exchange: prices, candles, order books, funding and contract objects."""
