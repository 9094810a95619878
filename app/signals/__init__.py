"""Signals: intake, judgement by agents, outcomes, and the sources that send them.

It uses trading, the portfolio and everything below them.
"""
