"""zmule.core.deadlines against a plain dictionary."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zmule.core.deadlines import SLACK, Deadlines

items = st.integers(0, 5)
times = st.integers(0, 20).map(float)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.deadlines: Deadlines[int] = Deadlines()
        self.model: dict[int, float] = {}

    @rule(item=items, at=times)
    def set(self, item: int, at: float) -> None:
        self.deadlines.set(item, at)
        self.model.pop(item, None)
        self.model[item] = at

    @rule(item=items)
    def discard(self, item: int) -> None:
        self.deadlines.discard(item)
        self.model.pop(item, None)

    @rule(now=times)
    def pop_due(self, now: float) -> None:
        due = [(at, item) for item, at in self.model.items() if at <= now]
        assert self.deadlines.pop_due(now) == sorted(due, key=lambda pair: pair[0])
        self.model = {item: at for item, at in self.model.items() if at > now}

    @invariant()
    def agrees(self) -> None:
        self.deadlines.validate()
        assert self.deadlines.next() == min(self.model.values(), default=None)
        assert len(self.deadlines) == len(self.model)
        assert [self.deadlines.get(item) for item in range(6)] == [self.model.get(item) for item in range(6)]
        assert all((item in self.deadlines) == (item in self.model) for item in range(6))


TestDeadlines = Machine.TestCase


def test_whoever_sets_and_discards_for_ever_costs_no_memory() -> None:
    deadlines: Deadlines[int] = Deadlines()
    deadlines.set(-1, 5.0)
    for item in range(10 * SLACK):
        deadlines.set(item, 1e9)
        deadlines.discard(item)
    assert len(deadlines._heap) <= 2 * SLACK
    assert deadlines.pop_due(10.0) == [(5.0, -1)]
