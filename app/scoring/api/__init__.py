"""Routes of scoring and their schemas."""
