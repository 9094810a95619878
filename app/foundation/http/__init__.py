"""HTTP of every capability: server, middleware, errors, request bodies, answers."""
