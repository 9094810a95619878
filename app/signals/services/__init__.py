"""Use cases of signals and the ports that they need."""
