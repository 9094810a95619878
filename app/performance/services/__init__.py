"""Use cases of performance and the ports that they need."""
