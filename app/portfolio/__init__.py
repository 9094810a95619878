"""The portfolio: members, weights, rebalancing, replacement, controls and proposals.

It uses scores, market data, the configuration and the foundation.
"""
