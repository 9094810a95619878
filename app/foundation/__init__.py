"""Foundation of every capability: errors, events, idempotency, jobs, metrics.

It imports no capability.
"""
