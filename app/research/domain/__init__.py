"""Pure values and mathematics of research."""
