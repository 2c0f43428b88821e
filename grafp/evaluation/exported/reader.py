"""Which layout a folder of exported fingerprints has."""

from grafp import storage
from grafp.errors import OptionError
from grafp.evaluation.exported.arrays import QUERIES, ArrayExport
from grafp.evaluation.exported.common import Export, read_settings
from grafp.evaluation.exported.tables import QUERIES_FILE, TRACKS_FILE, TableExport


def open_export(folder: str) -> Export:
    """The fingerprints of a folder or prefix, checked as far as that needs no fingerprint.

    Raises OptionError when it has no known layout, or a file that does not fit.
    """
    has = {
        name
        for name in (TRACKS_FILE, QUERIES_FILE, f"{QUERIES}.npy", f"{QUERIES}.mm")
        if storage.stat(storage.join(folder, name))
    }
    if not has:
        raise OptionError(
            f"--embeddings {folder}: has neither {TRACKS_FILE} and {QUERIES_FILE}, nor db and "
            "query as .npy or .mm"
        )
    settings = read_settings(folder)
    if {TRACKS_FILE, QUERIES_FILE} & has:
        return TableExport(folder, settings)
    return ArrayExport(folder, settings)
