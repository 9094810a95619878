"""Tests of the local exchange."""
