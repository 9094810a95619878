"""SQL of market data: tables and repositories."""
