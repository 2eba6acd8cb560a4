"""Quantization: one file per mode, one plan of what becomes of each node, one rewrite of the graph.

stage.py          the quantize stage: every graph of a model, every mode, the same checks
plan.py           which precision each node gets, and why the others keep fp32
static.py, dynamic.py, weight_only.py, fp16.py    the modes
ranges.py         from calibration samples to the ranges of a static mode
qdq.py, placement.py, operators.py                Q/DQ pairs: how, where, around what
integer.py, integers.py, storage.py               integer operators, numbers and weights
target.py         what the processor asks for
advice.py         what a user is told of the result
artifact.py       saving, and the checks before a file gets its name
"""
