"""Use cases of trading and the ports that they need."""
