"""Use cases of alerts and the ports that they need."""
