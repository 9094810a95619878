"""Performance of the portfolio: results, equity, attribution, metrics and reports.

Uses the portfolio and everything below it.
"""
