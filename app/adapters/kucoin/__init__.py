"""KuCoin futures over REST: limits, requests, parsing."""
