"""Alerts and notifications: rules, their life cycle, channels and delivery.

Uses signals, the portfolio and everything below them.
"""
