"""SQL of the portfolio: tables and repositories."""
