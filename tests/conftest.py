"""What every test has."""

from __future__ import annotations

import gc
import ssl
from collections.abc import Iterator

import pytest
import structlog
import trustme
from hypothesis import settings

from voiced.record import CallRecord

settings.register_profile("voiced", deadline=None)  # how busy the machine is proves nothing
settings.load_profile("voiced")


def pytest_collection_finish() -> None:
    """Thousands of tests and their modules are not looked through again by each collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _plugins_are_not_blamed() -> Iterator[None]:
    """A step of a plugin's that takes a second has failed, unless the machine is merely busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("voiced.hooks.runner.STALLED_S", 60.0)
        yield


@pytest.fixture(autouse=True)
def _strict_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of state that the table lacks fails the test that made it."""
    monkeypatch.setattr(CallRecord, "strict", True)


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """A command that logs warnings alone does so for itself, not for the tests after it."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who issues the certificates of the tests that need only one authority."""
    return trustme.CA()


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """What a server at localhost has that `client_tls` believes."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    """What a client has that believes this authority alone."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
