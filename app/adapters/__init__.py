"""The outside world, translated into domain values."""
