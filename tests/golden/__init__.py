"""The golden recording: one market of twelve hours, and every decision that is made on it."""
