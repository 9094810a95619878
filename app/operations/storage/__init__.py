"""SQL of operations: tables and repositories."""
