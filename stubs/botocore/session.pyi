from typing import Any

class Session:
    def create_client(
        self, service_name: str, region_name: str | None = None, **options: Any
    ) -> Any: ...
