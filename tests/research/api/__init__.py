"""Tests of the routes of research."""
