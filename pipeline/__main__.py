"""`speech-quantize`, and `python -m pipeline`: the command of `pipeline.cli`, which a signal may end at any moment."""

from pipeline.blas_threads import one_thread_each
from pipeline.garbage import collect_seldom
from pipeline.interruption import install


def main() -> None:
    """Run the command."""
    install()  # before the libraries are imported, which takes seconds
    one_thread_each()
    collect_seldom()
    from pipeline.cli import main as command

    command()


if __name__ == "__main__":
    main()
