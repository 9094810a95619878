"""KuCoin futures: REST requests within the exchange's limits, and parsing of its answers."""
