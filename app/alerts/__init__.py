"""Alerts and notifications: rules, their life cycle, channels and delivery.

It uses signals, the portfolio and everything below them.
"""
