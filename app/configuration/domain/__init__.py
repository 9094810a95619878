"""Pure values and mathematics of the configuration."""
