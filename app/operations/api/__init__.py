"""Routes of operations and their schemas."""
