"""What the package stage has made and tried: the report's `package`."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PackagedFile:
    """A file of the package.

    Attributes:
        file: its path in the package.
        bytes: its size.
        sha256: of its contents.
    """

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ClientTrial:
    """The package in the client itself.

    Attributes:
        client: its name and version.
        onnxruntime: the version of ONNX Runtime that it carries; None: it does not tell.
        samples: how many recordings it heard, or texts it spoke.
        wer_percent: word error rate of what it heard, or of what was heard in its speech; None: nothing to compare with.
        own_wer_percent: of the pipeline with the same graphs on the same samples.
        same_percent: of a detector, of how many steps it decides what the pipeline does with the same graph.
        apart_db: of a denoiser, the power of the pipeline's audio over that of the difference from the client's, at worst.
    """

    client: str
    onnxruntime: str | None
    samples: int
    wer_percent: float | None = None
    own_wer_percent: float | None = None
    same_percent: float | None = None
    apart_db: float | None = None

    @property
    def words(self) -> str:
        """The same in a sentence or two."""
        carried = f" (ONNX Runtime {self.onnxruntime})" if self.onnxruntime else ""
        said = f"Tried in {self.client}{carried} on {self.samples} samples."
        if self.same_percent is not None:
            return f"{said} It decides what the pipeline does in {self.same_percent:.2f} % of the steps."
        if self.apart_db is not None:
            return f"{said} Its audio is the pipeline's to within {self.apart_db:.0f} dB."
        if self.wer_percent is None or self.own_wer_percent is None:
            return said
        return (
            f"{said} Word error rate there {self.wer_percent:.2f} %, of the pipeline on the same {self.own_wer_percent:.2f} %."
        )


@dataclass(frozen=True)
class Package:
    """A directory that goes to a device.

    Attributes:
        directory: in the run's directory.
        kind: sherpa_onnx or onnx.
        files: all of it but the checksums themselves.
        trial: what the client made of it; None: it was not tried.
        untried: why not.
    """

    directory: str
    kind: str
    files: list[PackagedFile] = field(default_factory=list)
    trial: ClientTrial | None = None
    untried: str | None = None
