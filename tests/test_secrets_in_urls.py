"""A password, a signature or a token in a URL of the command line is shown nowhere, and kept nowhere."""

import pytest

from pipeline.urls import refuse_secrets


@pytest.mark.parametrize(
    "setting",
    [
        "calibration.path=https://host/x.npz?sig=hush", "evaluation.path='s3://bucket/x.npz#hush'",
        "model.path=HTTPS://me:hush@host/m.onnx", "model.path=https://me:a/hush@host/m.onnx",
        "model.path=https://hush@host/m.onnx", "model.url=https://me:hush@host/m.onnx",
        "model.url=https://host/m.onnx?X-Amz-Signature=hush", "tracking.uri=https://me:hush@host/",
        "+model={url: 'https://me:hush@host/m.onnx'}",
    ],
)  # fmt: skip
def test_a_secret_in_a_url_is_refused_before_a_file_holds_it(user_files, run_quickly, setting):
    """Hydra writes settings down before a run begins."""
    run = run_quickly("model=onnx", "mode=dynamic", "stages=[load]", setting)
    assert run.exit_code == 2
    assert setting.partition("=")[0].lstrip("+") in run.stderr
    assert "hush" not in run.stderr + run.stdout
    assert not any(b"hush" in path.read_bytes() for path in user_files.rglob("*") if path.is_file())


def test_what_is_no_secret_in_a_url_is_taken():
    refuse_secrets(
        ["model.url=https://host/m.onnx?download=true", "model.path=http://host:8080/a@b.onnx", "model.path=http://[::1]:80/a@b",
         "hydra.sweeper.storage=sqlite:///a.db?timeout=3", "model.path=file:///a:b@c?.onnx"]
    )  # fmt: skip
