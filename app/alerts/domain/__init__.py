"""Pure values and mathematics of alerts."""
