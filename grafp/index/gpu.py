"""FAISS on a GPU, where its build and this machine have one: nearest centroids, nothing else.

Choosing the nearest of some thousand centroids is most of the work of training and populating
an index. It is one product of matrices, which a GPU does many times as fast as a core. Codes and
lists stay on the CPU, so that an index is the same file wherever it was made.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

import faiss

T = TypeVar("T")
logger = logging.getLogger(__name__)

_SCRATCH_BYTES = 128 << 20  # FAISS would take 1.5 GiB; several tasks may share a GPU


def is_there() -> bool:
    """Whether this build of FAISS knows GPUs (`faiss-gpu`) and sees one."""
    return hasattr(faiss, "index_cpu_to_gpu") and faiss.get_num_gpus() > 0


def copy_of(centroids: faiss.Index) -> faiss.Index:
    """A flat index on this process's first GPU; RuntimeError when it does not fit there."""
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_SCRATCH_BYTES)
    return faiss.index_cpu_to_gpu(resources, 0, centroids)


def tried(work: Callable[[bool], T], wanted: bool) -> T:
    """What `work(True)` makes with a GPU; `work(False)` where there is none or FAISS fails on it.

    Args:
        wanted: False in a task that was given no GPU: Ray does not hide those of other tasks.
    """
    if wanted and is_there():
        try:
            return work(True)
        except RuntimeError as error:  # FAISS's, such as too little memory
            logger.info(f"FAISS goes on without the GPU: {str(error).splitlines()[-1][:200]}")
    return work(False)
