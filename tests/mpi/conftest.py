"""What the tests under mpirun share."""

from __future__ import annotations

import pytest

from distgrad import distributed


@pytest.fixture
def world() -> distributed.Communicator:
    """All ranks, none of which is still in the test before."""
    communicator = distributed.init("mpi")
    communicator.barrier()
    return communicator
