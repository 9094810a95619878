"""Research: recorded sessions and indicators over whole histories.

Uses market data and scores.
"""
