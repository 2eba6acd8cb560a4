"""Quantization: one plan of what becomes of each node, one rewrite of the graph per mode.

plan.py                  which precision each node gets, and why the others keep fp32
static.py, dynamic.py, weight_only.py, fp16.py    the modes; plan_of_mode.py: chooses among them
calibrated_ranges.py     from calibration samples to the ranges of a static mode
silent_tensors.py        tensors that were zero in all of calibration
qdq_placement.py         where Q/DQ pairs go; qdq_writer.py: writes them
matrix_form.py           products by a constant as MatMul; shared_tables.py: one int8 copy of a table for both that read it
operators.py             what a quantizer has to know of each operator type
qparams.py               scales and zero points: the arithmetic of linear quantization
dynamic_ops.py           integer operators with dynamic ranges; static_matmul_scales.py: with known scales
weight_storage.py        weights stored as int8, computation in float; small_integers.py: indices in few bytes
stored_constants.py      which constants may be stored beside the weights of layers
short_names.py           names of inner tensors, where they take a good part of the file
block_weights.py         weights in blocks of 4 or 8 bits
fp16_cleanup.py          what the converter to half precision trips over, and leaves behind
ort_quantizer.py         ONNX Runtime's own quantizer, for what only it writes
qoperator_limits.py      what that one gets wrong or fails at; names_put_aside.py: names that it would take
ort_fusion_guard.py      keeps float what ONNX Runtime would fuse into integers at a loss
target.py                the processors that a model is made for, as data
paired_sums.py           weights whose products two at a time fit 16 bits; saturation.py: which sums do not, to the bit
exponents.py             layers whose output is an exponent, which keeps its precision
infinite_activations.py  nodes that stay float because what they read or make has no range
exclusions.py            excluded nodes, where several graphs follow one mode
precision_labels.py      what each node of the written graph is, in words
mode_advice.py           which mode is advised for a graph
plan_check.py            the finished graph beside the plan
processor_fit.py         for which processors a finished graph is right
artifact.py              saving, and the checks before a file gets its name
user_notes.py            messages to the user about the result
"""
