"""Pure values of security: keys, addresses, failures."""
