"""Routes of the portfolio and their schemas."""
