"""`my-symbols`: runs the service and the local exchange, and calls a running service."""

try:
    from app.cli.application import main
except KeyboardInterrupt:  # Ctrl-C while the modules are still loading
    raise SystemExit(130) from None

__all__ = ["main"]
