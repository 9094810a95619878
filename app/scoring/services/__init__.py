"""Use cases of scoring and the ports that they need."""
