"""Use cases of research and the ports that they need."""
