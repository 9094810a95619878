"""Routes of trading and their schemas."""
