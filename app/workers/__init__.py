"""Scheduled and supervised background tasks, and the engine of durable jobs."""
