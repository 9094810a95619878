"""Performance of the portfolio: results, equity, attribution, metrics and reports.

It uses the portfolio and everything below it.
"""
