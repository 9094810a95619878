"""Signals: intake, evaluation by agents, outcomes, and the built-in sources.

Uses trading, the portfolio and everything below them.
"""
