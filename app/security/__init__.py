"""Security: API keys, authentication of every request, and the local key of this machine.

Uses the configuration and everything below it.
"""
