"""Rewrites that compute the same and are faster.

engine.py               tries rewrites one after the other: checked on real inputs, timed, kept or refused
rewrite_registry.py     all rewrites, in order. Add a rewrite here.
outcome.py              what a rule returns: its places, or why there are none
value_bounds.py         which values a tensor can hold: proofs for rules that would have to assume them
equivalence.py          does a changed graph still compute the same on real inputs?
masked_rows.py          the same where rows of attention are masked entirely
around_quantization.py  rewrites before and layouts after a quantizer
layouts.py              the layouts that a quantized graph may take
rules/                  rewrites of operators, one file each
layout/                 rewrites of the layout of whole regions
"""
