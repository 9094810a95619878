"""Use cases of the portfolio and the ports that they need."""
