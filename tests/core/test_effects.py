"""What a store is told by each effect that is for it."""

from __future__ import annotations

from zmule.core.effects import Bury, Changes, Forget, Mark, Save
from zmule.core.queues import Dead, Message

MESSAGE: Message = (7, "any", "x", 1, 0.0, None, None)


def test_messages_are_saved_with_the_mark_of_their_sender_if_they_have_one() -> None:
    mark = Mark(bytes(16), 3, ())
    assert Save(2, [MESSAGE], mark).changes() == Changes(2, messages=[MESSAGE], senders=(mark,))
    assert Save(2, [MESSAGE], None).changes() == Changes(2, messages=[MESSAGE])


def test_what_only_shrinks_the_books_needs_no_answer() -> None:
    dead = Dead(MESSAGE, "why", 1, 0.0)
    assert Forget([7]).changes() == Changes(removed=[7])
    assert Bury(dead).changes() == Changes(dead=(dead,))
