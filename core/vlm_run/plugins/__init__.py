"""Finds the installed plugins, and implements the defaults of their hooks."""
