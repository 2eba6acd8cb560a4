"""`run=<directory> say=<text>` and `transcribe=<recording>`: what a past run has made, to be judged by ear in ten seconds."""

import numpy as np
import pytest
import soundfile

TEXT = "Hello there, you (and I) = two: it's 3 o'clock."


@pytest.fixture(scope="module")
def voice(shipped_run):
    """Return the run of a voice."""
    return shipped_run("matcha", "static").directory


@pytest.fixture(scope="module")
def recogniser(shipped_run):
    """Return the run of a recogniser."""
    return shipped_run("asr", "dynamic").directory


def test_both_models_of_a_run_speak_a_text_and_a_recogniser_hears_the_same_words(run_quickly, voice, recogniser):
    pytest.importorskip("espeakng_loader", reason="needs the extra test")
    spoken = run_quickly(f"run={voice}", "say=please wait for the next train").succeeded()
    files = {line.split(": ")[0]: line.split(": ", 1)[1] for line in spoken.stdout.splitlines() if line.startswith("speech of")}
    assert set(files) == {"speech of fp32", "speech of int8"}
    heard = [line for line in spoken.stdout.splitlines() if "heard: " in line]
    assert len(heard) == 2 and all("train" in line for line in heard)
    audio, rate = soundfile.read(files["speech of int8"])
    assert rate == 22_050
    assert np.abs(audio).max() > 0.05
    assert not list(spoken.folder.glob("outputs/*/*/*/report.json")), "no run is left"
    written = run_quickly(f"run={recogniser}", f"transcribe={files['speech of fp32']}").succeeded()
    assert [line.split(":")[0] for line in written.stdout.splitlines()] == ["fp32", "int8"]
    assert all("train" in line for line in written.stdout.splitlines())


def test_a_text_is_spoken_whatever_signs_it_holds(run_quickly, voice):
    pytest.importorskip("espeakng_loader", reason="needs the extra test")
    assert "three o clock" in run_quickly(f"run={voice}", f"say={TEXT}").succeeded().stdout


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["say=hello"], "run: give a run's directory"),
        (["run={recogniser}"], "run: give a run's directory"),
        (["run={recogniser}", "say=hello"], "does not speak texts. With recordings: transcribe=<file>."),
        (["run={voice}", "transcribe=x.wav"], "writes nothing down. With texts: say=<text>."),
        (["run={recogniser}", "transcribe=x.wav"], "x.wav: audio file not found."),
        (["run=nowhere", "say=hello"], "run: nowhere is not a run's directory"),
        (["run={recogniser}", "transcribe=x.wav", "mode=static"], "mode: would have no effect beside run"),
        (["run={recogniser}", "transcribe=x.wav", "rerun=y"], "leave out rerun"),
    ],
)
def test_what_a_run_cannot_do_is_said_in_one_line(run_quickly, voice, recogniser, settings, said):
    run = run_quickly(*(text.format(voice=voice, recogniser=recogniser) for text in settings))
    assert run.exit_code == 2
    assert said in run.stderr
    assert "Traceback" not in run.stderr
