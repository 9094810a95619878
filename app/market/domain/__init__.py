"""Pure values and mathematics of market data."""
