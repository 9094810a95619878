"""Security: API keys, people, sessions, and the authentication of every request.

Uses the configuration and everything below it.
"""
