"""SQL of performance: tables and repositories."""
