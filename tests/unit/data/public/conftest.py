import pytest


@pytest.fixture(autouse=True)
def without_data_folder(monkeypatch):
    monkeypatch.delenv("FEDALI_DATA", raising=False)
