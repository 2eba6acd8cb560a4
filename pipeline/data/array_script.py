"""`make_calib.py`: a small program that a user fills in, which turns data into the arrays that calibration takes."""

from collections.abc import Mapping, Sequence

from pipeline.record.results import TensorShape

SCRIPT_FILE = "make_calib.py"
_TEMPLATE = '''"""Turn your data into arrays for {model}: fill in `inputs_of`, then run

    python make_calib.py <folder of recordings or texts>

It writes calib.npz and eval.npz (every second file goes into each). Then, with `calibration=arrays`:
calibration.path=calib.npz evaluation.path=eval.npz
"""

import sys
from pathlib import Path

import numpy as np

# What the model takes: name -> type and shape; None, or a name, is a length that may change.{without}
INPUTS = {{
{inputs}
}}


def inputs_of(path: Path) -> dict[str, np.ndarray]:
    """Return what the model takes for one file, computed exactly as in training (sample rate, features, normalisation)."""
    raise SystemExit("make_calib.py: fill in inputs_of first.")
    return {{
{example}
    }}


def main() -> None:
    files = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_file())
    arrays = {{"calib": {{}}, "eval": {{}}}}
    for number, path in enumerate(files):
        given = inputs_of(path)
        if given.keys() != INPUTS.keys():
            raise SystemExit(f"{{path}}: inputs_of gives {{sorted(given)}}, and the model takes {{sorted(INPUTS)}}.")
        for name, array in given.items():
            kind, shape = INPUTS[name]
            fits = shape is None or len(shape) == array.ndim and all(
                not isinstance(size, int) or size == found for size, found in zip(shape, array.shape)
            )
            if array.dtype != kind or not fits:
                raise SystemExit(f"{{path}}: {{name}} is {{array.dtype}} {{array.shape}}; the model takes {{kind}} {{shape}}.")
            arrays["eval" if number % 2 else "calib"][f"{{path.stem}}/{{name}}"] = array
    for name, found in arrays.items():
        np.savez(f"{{name}}.npz", **found)
        print(f"{{name}}.npz: {{len(found)}} arrays")


if __name__ == "__main__":
    main()
'''


def array_script(model: str, inputs: Sequence[TensorShape], states: Mapping[str, str], *, cut: bool = False) -> str:
    """Return the text of make_calib.py.

    Args:
        model: its name.
        inputs: what its first graph takes.
        states: output -> the input that it is fed back to, of a model that is run over whole sequences.
        cut: whether sequences are cut along an axis (`model.chunk`), and have no axis of their own for the steps.
    """
    table, example = [], []
    taken = [one for one in inputs if one.name not in states.values()]
    for one in taken:
        kind = one.type if one.type in ("float32", "float64", "float16", "int64", "int32", "bool") else "float32"
        sequence = bool(states) and one is taken[0]  # the first input is what a streaming model hears
        stacked = sequence and not cut
        dims = None if one.shape is None or (sequence and cut) else [*(["steps"] if stacked else []), *one.shape]
        table.append(f"    {one.name!r}: ({kind!r}, {None if dims is None else tuple(dims)!r}),")
        shape = ", ".join(str(size) if isinstance(size, int) else "1" for size in dims or one.shape or ())
        note = "fill in" + (": a whole recording" if sequence else "") + (", the first axis is its steps" if stacked else "")
        example.append(f"        {one.name!r}: np.zeros(({shape}{',' if shape else ''}), {kind!r}),  # {note}")
    without = f"\n# Its states ({', '.join(states.values())}) are left out: they go from step to step." if states else ""
    return _TEMPLATE.format(model=model, inputs="\n".join(table), example="\n".join(example), without=without)
