"""`my-symbols`: runs the service and the local exchange, and asks a running service."""

try:
    from app.cli.application import main
except KeyboardInterrupt:  # Ctrl-C while all of it is still being loaded, which takes seconds
    raise SystemExit(130) from None

__all__ = ["main"]
