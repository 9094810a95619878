"""SQL of security: tables and repositories."""
