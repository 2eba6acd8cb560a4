"""Quantize ONNX speech models, and measure what that costs.

    errors.py           errors that a user can act on
    paths.py            files that settings name: where they are, their hash
    processor.py        the processor of this machine
    sample.py           one sample: the arrays that one call of a graph takes
    utterance.py        one utterance of a data set: text, token ids, recording
    evaluation_kind.py  what quality means for a model
    config/             every setting; from Hydra's composition to typed settings, checked once
    record/             what a run leaves: its directory, the log of what it read and warned of, its environment
    graph/              ONNX graphs: loading, sessions, names, shapes, parts of a graph, edits
    audio/              signal processing that models, data and metrics share
    models/             one adapter per kind of model
    data/               calibration and evaluation sets; manifests, recordings, arrays, downloads
    metrics/            tensor, audio and text metrics, each a plain function
    calibration/        the range engine: streaming statistics and the ranges that follow from them
    quantize/           quantization modes: plan, integer types, Q/DQ pairs, artifacts
    ptq/                algorithms without training: SmoothQuant, GPTQ, bias correction, equalization
    measure/            paired timing, memory, profiles
    optimize/           rewrites of float graphs and layouts of integer ones, each kept where it is faster
    evaluate/           fp32 and quantized on the same inputs; the loss of a changed graph
    mixed_precision/    mode=auto: the precision of each node by sensitivity, gain and a greedy knapsack
    stages/             load, inspect, quantize, benchmark, evaluate: one file each
    report/             report.json, the terminal, report.html, comparisons of runs
    runner.py           the chain of stages, its order and its promises
    rerun.py            what differs when a past run is run again
    cli.py              what run.py is made of

Data flows one way: load -> inspect -> quantize -> benchmark -> evaluate -> report. Imports do too: a package of this list
imports only from those above it.
"""
