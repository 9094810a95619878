"""Scores of the universe: factors, composite, boards, explanations and their replay.

Uses market data, the configuration and the foundation.
"""
