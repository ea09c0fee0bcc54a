"""The HTTP service in front of a model: `vlmbatch serve`, and an app factory for any ASGI server.

Raises MissingDependencyError on import if the packages of the extra [service] are not installed.
"""

from importlib.util import find_spec

from vlmbatch.errors import MissingDependencyError

for _package in ("fastapi", "httptools", "limits", "prometheus_client", "python_multipart", "uvicorn"):
    if find_spec(_package) is None:
        raise MissingDependencyError(
            f'{_package} is not installed; install it with: pip install "vlmbatch[service]"'
        )
