"""Pure values and mathematics of signals."""
