"""HTTP models of the configuration, made from the declared settings."""
