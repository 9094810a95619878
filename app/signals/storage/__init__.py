"""SQL of signals: tables and repositories."""
