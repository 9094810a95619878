"""SQL of scoring: tables and repositories."""
