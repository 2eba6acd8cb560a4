"""A pipeline that makes ONNX speech models small and fast, and proves what that cost.

    settings.py       every setting: type, unit, default
    config.py         from Hydra's composition to typed settings, checked once
    runner.py         the chain of stages, its order and its promises
    cli.py            what run.py is made of: one run from a composed config, and errors as people read them
    run_directory.py  a run's own directory: artifacts, report.json, run.log
    rerun.py          what differs when a past run is run again
    load.py           find the graphs, hash and check them
    inspect_graph.py  operators, shapes, parameters, MACs, time; which mode is advised
    graph/            questions about a graph and changes to it: tensors that decide shapes, node patterns, noise, opset
    data/             manifests, folders of audio, sentences, arrays and noise, as samples; downloads
    journal.py        what a run has read, skipped and warned of
    paths.py          where the files are that settings name
    sample_sets.py    which samples a run calibrates and evaluates on
    ensemble.py       the graphs of one model, run as a whole
    rewrite/          exact changes of float graphs, each kept where it measures faster
    algorithms/       what buys quality at no cost at run time: equalisation, smoothing, rounding, bias correction
    calibration/      the range engine: streaming statistics and the ranges that follow from them
    quantize/         one file per mode
    search/           which precision each node should have, by what it loses and gains: mode=auto
    benchmark/        paired, interleaved timing; memory; profile
    evaluate/         fp32 and quantized on the same inputs: one file per kind of evaluation
    metrics/          tensor, audio and text metrics, each a plain function
    models/           one adapter per kind of model
    report/           report.json, its table in the terminal, report.html; several runs side by side
    errors.py         what a user can act on

Data flows one way: load -> inspect -> quantize -> benchmark -> evaluate -> report.
"""
