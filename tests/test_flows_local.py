"""The settings of the local Prefect."""

import pytest

from deploy import local
from deploy.services import ServiceError


def test_the_database_is_sqlite_or_the_postgresql_that_is_named(monkeypatch):
    monkeypatch.delenv(local.DATABASE, raising=False)
    assert local.local_environment()["PREFECT_API_DATABASE_CONNECTION_URL"].startswith("sqlite+aiosqlite:///")
    address = "postgresql+asyncpg://prefect:verysecret@127.0.0.1/prefect"
    monkeypatch.setenv(local.DATABASE, address)
    environment = local.local_environment()
    assert environment["PREFECT_API_DATABASE_CONNECTION_URL"] == address
    assert local.DATABASE not in environment


def test_another_database_is_refused_without_its_password(monkeypatch):
    monkeypatch.setenv(local.DATABASE, "mysql://u:verysecret@h/d")
    with pytest.raises(ServiceError, match=r"NTULM_DATABASE: expected postgresql\+asyncpg") as error:
        local.local_environment()
    assert "verysecret" not in str(error.value)
