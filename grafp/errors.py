"""Every error that this project raises on purpose.

GrafpError
├── AudioError              one recording cannot be used; costs its own row, never the run
│   ├── EmptyAudio          no bytes, or no samples
│   ├── UnreadableAudio     not audio, an unsupported format, or damaged beyond decoding
│   ├── TruncatedAudio      shorter than its own header says
│   ├── SilentAudio         nothing to fingerprint
│   ├── TooShortAudio       shorter than one segment
│   ├── TooLongAudio        longer than the limit
│   └── ChannelAudio        channels that cannot be mixed to mono
├── StorageError            a file, bucket or credential problem
│   └── StoreUnreachable    a store that does not answer, whatever is asked of it
├── ModelError              a model bundle that cannot be used, or does not fit the catalog
├── CatalogError          a catalog that is missing, damaged or of another version
├── ClusterError            Ray is not there, or has not the machines that the work needs
├── TrainingError           training cannot start or has diverged
└── OptionError             a command-line option with a value that cannot work
"""


class GrafpError(Exception):
    """Base of all errors raised on purpose; its text is one line meant for a user."""


class AudioError(GrafpError):
    """One recording cannot be used. `kind` is the short name written to result tables."""

    kind = "audio"


class EmptyAudio(AudioError):
    kind = "empty"


class UnreadableAudio(AudioError):
    kind = "unreadable"


class TruncatedAudio(AudioError):
    kind = "truncated"


class SilentAudio(AudioError):
    kind = "silent"


class TooShortAudio(AudioError):
    kind = "too_short"


class TooLongAudio(AudioError):
    kind = "too_long"


class ChannelAudio(AudioError):
    kind = "channels"


class StorageError(GrafpError):
    """A path, bucket, network or credential problem."""


class StoreUnreachable(StorageError):
    """A store that does not answer: no fault of the one file that was asked for."""


class ModelError(GrafpError):
    """A model bundle that cannot be loaded or run, or is not the one that made the catalog."""


class CatalogError(GrafpError):
    """A catalog that does not exist, is damaged, or has another format version."""


class TrainingError(GrafpError):
    """Training cannot start, or its loss stopped being a number."""


class ClusterError(GrafpError):
    """Ray cannot be reached, refuses, or has not the machines that the work needs."""


class OptionError(GrafpError):
    """A command-line option whose value cannot work; jobs exit with code 2."""
