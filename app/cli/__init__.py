"""`my-symbols`: runs the service and the local exchange, and asks a running service."""

from app.cli.application import main

__all__ = ["main"]
