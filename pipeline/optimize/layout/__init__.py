"""Rewrites of the layout of whole regions: channels last, NCHWc, time folded into channels."""
