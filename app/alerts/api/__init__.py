"""Routes of alerts and their schemas."""
