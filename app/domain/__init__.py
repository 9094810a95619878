"""Values and mathematics: no clock, no socket, no database, no logger."""
