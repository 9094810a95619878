"""SQL of alerts: tables and repositories."""
