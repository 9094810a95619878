"""Pure values and mathematics of scoring."""
