"""Notification channels to people and programs; every connection goes through `egress`."""
