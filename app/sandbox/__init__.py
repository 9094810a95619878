"""The local KuCoin-compatible futures exchange; it imports nothing else of the product.

Its market is invented from a seed, or replayed from a file of real candles; of a replay only the
daily candles are real, all that is finer or comes from elsewhere is made around them (replay.py).
"""
