"""Pure values and mathematics of the portfolio."""
