"""Use cases of operations and the ports that they need."""
