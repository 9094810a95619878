"""Composition root: assembles the service from settings, adapters and use cases.

It uses everything but the command line.
"""
