"""Pure values and mathematics of trading."""
