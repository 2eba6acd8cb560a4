"""Rewrites that compute the same and are faster.

engine.py               tries rewrites one after the other: checked on real inputs, timed, kept or refused
rewrite_registry.py     all rewrites, in order. Add a rewrite here.
equivalence.py          does a changed graph still compute the same?
around_quantization.py  rewrites before and layouts after a quantizer
layouts.py              the layouts that a quantized graph may take
rules/                  rewrites of operators, one file each
layout/                 rewrites of the layout of whole regions
"""
