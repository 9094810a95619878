"""HTTP routes of signals and their schemas."""
