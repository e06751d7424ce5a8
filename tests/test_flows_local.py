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


def test_the_page_of_the_run_before_is_served_where_the_report_links_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "ROOT", tmp_path)
    monkeypatch.setattr(local, "SITE", tmp_path / "site")
    (tmp_path / "data/runs").mkdir(parents=True)
    (tmp_path / "data/runs/a.html").write_text("earlier")
    local.link_site()
    local.link_site()  # again, as every `make up` does
    assert (tmp_path / "site/data/runs/a.html").read_text() == "earlier"
    assert not (tmp_path / "site/data/corpus").exists()
