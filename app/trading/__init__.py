"""Decisions on trades: position sizes, tradeable symbols and the safety of the portfolio.

Uses performance, the portfolio and everything below them.
"""
