"""SQL of the configuration: tables and repositories."""
