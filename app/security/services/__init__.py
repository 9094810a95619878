"""Use cases of security and the ports that they need."""
