"""Shape and type checks for the whole suite, and the small data sets that tests share."""

import os

# Tensors here are tiny: more threads only wait for one another, and for the other processes of a shared machine. Before
# torch is imported, and for the processes that tests start as well.
os.environ["OMP_NUM_THREADS"] = "1"

import jaxtyping  # noqa: E402

# Before anything of ours is imported: every signature with a shape is then checked at every call.
jaxtyping.install_import_hook(["slmrec_core"], "beartype.beartype")

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from slmrec_core.data import SequenceDataset, synthetic_interactions  # noqa: E402

# A law holds however long the machine takes to try it.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")


@pytest.fixture(scope="session")
def tiny_dataset() -> SequenceDataset:
    """24 users on a ring of 12 items, histories of 8 to 28 events."""
    frame = synthetic_interactions(num_users=24, num_items=12)
    return SequenceDataset.from_interactions(frame, min_user=1, min_item=1)


@pytest.fixture(scope="session")
def item_table() -> Tensor:
    """Random vectors for `tiny_dataset`, 6 wide, row 0 for padding."""
    table = torch.randn(13, 6, generator=torch.Generator().manual_seed(7))
    table[0] = 0.0
    return table
