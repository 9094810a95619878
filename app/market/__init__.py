"""Market data of KuCoin futures: contracts, candles, books, stream, quality, eligibility.

It uses the configuration and the foundation.
"""
