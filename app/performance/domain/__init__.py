"""Pure values and mathematics of performance."""
