"""The directory that goes to a device: graphs under the client's names, model card, checksums; tried in the client itself.

collect_files.py      the files of a package
model_card.py         README.md: a model card with the measured figures, and how the client is called
client_usage.py       that part of it: the command, Python, Kotlin
client_trial.py       the package in the real client, a process of its own; sherpa_onnx_child.py: that process
ort_format.py         ONNX Runtime's own format, for builds without a parser of ONNX
"""
