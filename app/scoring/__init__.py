"""Scores of the universe: factors, composite, boards, explanations and their replay.

It uses market data, the configuration and the foundation.
"""
