"""Questions are asked again until they are answered; what cannot travel is refused at once."""

from __future__ import annotations

from typing import Any

import pytest

from zmule.core.frames import Answer
from zmule.core.questions import MAX_ARGUMENTS, Questions
from zmule.errors import WrongValue


def test_a_question_is_open_until_it_is_answered() -> None:
    questions = Questions()
    request = questions.ask("ping", ())
    assert [ask.request for ask in questions.unsent()] == [request]
    assert questions.unsent() == []
    questions.again()
    assert [ask.request for ask in questions.unsent()] == [request]
    questions.take(Answer(request, "", 5))
    assert questions.answered(request)
    assert questions.answer(request) == Answer(request, "", 5)
    assert not questions


@pytest.mark.parametrize(
    "argument", ["\ud800", 2**70, object(), "x" * MAX_ARGUMENTS], ids=lambda value: str(type(value))
)
def test_an_argument_that_cannot_travel_is_refused(argument: Any) -> None:
    questions = Questions()
    with pytest.raises(WrongValue, match="add_timer"):
        questions.ask("add_timer", (1, argument))
    assert not questions
    assert questions.unsent() == []
