"""Recording and replay of a session's exchange answers, stream frames and results."""
