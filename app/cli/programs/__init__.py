"""Programs behind the commands that load the service; imported only when they run."""
