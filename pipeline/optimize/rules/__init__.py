"""Rewrites of operators, one file each, named after what it does."""
