"""Local KuCoin-compatible futures exchange; it imports no other package of the product.

Its market is generated from a seed, or replayed from a file of real candles. Of a replay only the
daily candles are real; finer and other data are generated around them (history/replay.py).
"""
