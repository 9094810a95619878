"""Routes of performance and their schemas."""
