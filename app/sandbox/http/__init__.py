"""HTTP parts of the local exchange that know no market: envelopes, rate limit and faults."""
