"""HTTP: strict bodies in, problem+json and typed answers out."""
