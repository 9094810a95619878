"""Use cases of market data and the ports that they need."""
