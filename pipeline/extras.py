"""What is installed on request: `pip install 'speech-quantization-pipeline[report,fast,espeak]'`; `all` is the three."""

PROJECT = "speech-quantization-pipeline"


def how_to_install(extra: str) -> str:
    """Return the command that installs what an extra of pyproject.toml names."""
    return f"pip install '{PROJECT}[{extra}]'"
