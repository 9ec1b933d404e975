"""Finds the installed plugins, and the implementation of the hooks that every model type falls back on."""
