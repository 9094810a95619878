"""Declares the commands: names, options and help texts.

Commands that call a running service do so here; the others run a program of `app.cli.programs`.
"""
