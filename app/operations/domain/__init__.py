"""Pure values and mathematics of operations."""
