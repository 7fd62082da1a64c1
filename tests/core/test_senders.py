"""What a sender may claim."""

from __future__ import annotations

import pytest

from zmule.core.senders import LAST_NUMBER, Sender
from zmule.errors import ProtocolError


def test_numbers_end_where_a_store_and_a_confirm_can_no_longer_hold_them() -> None:
    sender = Sender(bytes(16), last=LAST_NUMBER - 1)
    with pytest.raises(ProtocolError, match="numbered up to"):
        sender.accept(LAST_NUMBER, 2, 0)
    assert sender.accept(LAST_NUMBER, 1, 0) == 0
