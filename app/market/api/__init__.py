"""Routes of market data and their schemas."""
