"""Business settings: one versioned document with types, defaults and bounds.

It uses the foundation.
"""
