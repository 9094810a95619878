"""Routes of signals and their schemas."""
