"""SQL of research: the log of trials."""
