"""My Symbols: which KuCoin futures symbols to hold, with what weight and size."""
