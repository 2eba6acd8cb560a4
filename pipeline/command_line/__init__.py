"""From what the shell hands over to what Hydra takes.

arguments.py       the whole command line: options, settings, what neither is
override_text.py   values as Hydra's grammar takes them: paths with spaces, brackets, any script
short_form.py      `model.onnx --calib recordings/`: the settings that it stands for
correction.py      the line to paste after a mistake
completion.py      completion in bash
"""
