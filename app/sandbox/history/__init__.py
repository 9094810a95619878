"""Daily history of the local exchange: contracts and daily bars, invented or replayed."""
