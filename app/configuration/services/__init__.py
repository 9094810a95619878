"""Use cases of the configuration and the ports that they need."""
