"""HTTP routes of security, their schemas, and the authentication of every request."""
