"""HTTP routes of research."""
