from typing import Any

class Session:
    def get_service_model(self, service_name: str) -> Any: ...
    def create_client(
        self, service_name: str, region_name: str | None = None, **options: Any
    ) -> Any: ...
