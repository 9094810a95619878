"""WebSocket half of the local exchange: tokens, topics, frames, limits and faults.

Every frame comes from the functions that answer over REST, at the same exchange time.
"""
