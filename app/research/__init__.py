"""Research: recorded sessions and figures over whole histories.

It uses market data and scores.
"""
