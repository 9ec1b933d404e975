"""Reads checkpoint directories and the hub cache without a model library."""
