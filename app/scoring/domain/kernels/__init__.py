"""Compiled loops over a whole universe: the same numbers as the plain functions, many times faster.

Each kernel is one function of its own file that calls no other compiled one: numba's cache looks
at the file of a kernel alone, and would go on with an old version of what it calls.
"""
