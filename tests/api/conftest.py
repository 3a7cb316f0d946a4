"""The service's log is not the tests' output."""

import pytest
import structlog


@pytest.fixture(autouse=True, scope="package")
def _quiet():
    structlog.configure(processors=[structlog.processors.JSONRenderer()],
                        logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()
