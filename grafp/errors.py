"""Every error that this project raises on purpose; docs/reference/errors.md lists them."""


class GrafpError(Exception):
    """Base of all errors raised on purpose; its text is one line meant for a user."""


class AudioError(GrafpError):
    """One recording cannot be used, such as one of more than 2 GiB; it costs its own row only.

    `kind` is the short name written to result tables.
    """

    kind = "audio"


class EmptyAudio(AudioError):
    """The file has no bytes, or no samples."""

    kind = "empty"


class UnreadableAudio(AudioError):
    """Not audio, an unsupported format, or damaged beyond decoding."""

    kind = "unreadable"


class TruncatedAudio(AudioError):
    """Shorter than its own header says."""

    kind = "truncated"


class SilentAudio(AudioError):
    """Nothing above -80 dB below full scale."""

    kind = "silent"


class TooShortAudio(AudioError):
    """Shorter than 1 s, the length of one fingerprint."""

    kind = "too_short"


class TooLongAudio(AudioError):
    """Longer than `--max-seconds`."""

    kind = "too_long"


class ChannelAudio(AudioError):
    """Channels that cannot be mixed to mono."""

    kind = "channels"


class StorageError(GrafpError):
    """A path, bucket, network or credential problem; of one recording: `error_kind` `storage`."""


class StoreUnreachable(StorageError):
    """A store that does not answer: no fault of the one file that was asked for."""


class DiskFull(StorageError):
    """A disk has no room for what is written; searches then read from the store."""


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
