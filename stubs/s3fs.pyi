from typing import Any

class S3FileSystem:
    retries: int
    def __init__(self, *, config_kwargs: dict[str, Any], **storage_options: Any) -> None: ...
