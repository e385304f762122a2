"""Collections, models and indexes that the servers of these tests share."""

import pytest
from fakes.serving import Folders


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Folders by name, made when they are first asked for."""
    return Folders(tmp_path_factory.mktemp("served"))
