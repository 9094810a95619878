"""Use cases in four steps: load, decide, save, tell."""
