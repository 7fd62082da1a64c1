"""The arguments of a call: what travels, what does not, and what bytes of a stranger's can do: nothing."""

from __future__ import annotations

import pickle
import uuid
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmule.compat import calls
from zmule.errors import ConfigError

LOCAL = "ipc:///run/zmule.sock"
REMOTE = "tcp://10.0.0.1:5000"

VALUES = [
    None, True, False, 0, -1, 2**63, 2**64, -(2**63) - 1, 10**400, 1.5, float("inf"), "", "così", b"",
    b"\xff", [], [1, [2]], {}, {"a": {1: 2}}, {(1, 2): 3, b"x": 4, None: 5},
    (), (1, (2, "x")), set(), {1, (2, 3)}, frozenset({b"a"}), {frozenset({1})},
    datetime(2024, 2, 29, 23, 59, 59, 999999), datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30, seconds=-5))),
    date(1, 1, 1), time(1, 2, 3, 4), time(1, tzinfo=UTC), timedelta(days=-3, microseconds=7), timedelta.max,
    Decimal("1.10"), Decimal("-Infinity"), Decimal("1e-5000"), uuid.UUID(int=5),
]  # fmt: skip

atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
hashable = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
values = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(hashable, max_size=3)
        | st.dictionaries(hashable, inner, max_size=3)
    ),
    max_leaves=8,
)


class Point(NamedTuple):
    x: int


class Colour(IntEnum):
    RED = 1


class Text(str):
    pass


class Sly:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> Any:
        raise AssertionError("pickled")


def travel(*args: Any, **kwargs: Any) -> calls.Arguments:
    return calls.load(calls.dump(args, kwargs, LOCAL), LOCAL)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, and of the same types all through."""
    return repr(one) == repr(other) or (one == other and type(one) is type(other))


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_arrives_as_it_left(value: Any) -> None:
    (arrived,), kwargs = travel(value, name=[value])
    assert arrived == value
    assert type(arrived) is type(value)
    assert kwargs == {"name": [value]}


@given(st.lists(values, max_size=3), st.dictionaries(st.text(), values, max_size=3))
def test_any_of_them_arrives_in_any_other(args: list[Any], kwargs: dict[str, Any]) -> None:
    arrived = travel(*args, **kwargs)
    assert arrived == (tuple(args), kwargs)
    assert same(arrived, (tuple(args), kwargs))


@pytest.mark.parametrize(
    "value",
    [object(), Sly(), Point(1), Colour.RED, Text("x"), OrderedDict(), bytearray(b"x"), memoryview(b"x"), 1j,
     len, int, range(3), iter([]), Ellipsis],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_anything_else_is_a_type_error_at_the_call(value: Any) -> None:
    for args in ([value], [[value]], [{"x": (value,)}], [{1: {2: [value]}}]):
        with pytest.raises(TypeError, match=f"{type(value).__name__} cannot be an argument"):
            travel(*args)
    with pytest.raises(TypeError, match="cannot be an argument"):
        travel(x=value)


def test_nesting_has_an_end_on_both_sides() -> None:
    nested: Any = ()
    for _ in range(calls.MOST_NESTED - 1):
        nested = (nested,)
    assert travel(nested) == ((nested,), {})
    with pytest.raises(ValueError, match="nested too deeply"):
        travel((nested,))
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested too deeply"):
        travel(endless)
    packed = b"\x90"
    for _ in range(3000):
        packed = msgpack.packb(msgpack.ExtType(1, packed))
    with pytest.raises(ValueError, match="not the arguments"):
        calls.load(packed, LOCAL)


@given(st.binary() | values.map(lambda value: calls.dump((value,), {}, LOCAL)[:-1]))
def test_bytes_of_a_strangers_are_arguments_or_a_value_error(data: bytes) -> None:
    try:
        args, kwargs = calls.load(data, LOCAL)
    except (ValueError, ConfigError):
        return
    assert type(args) is tuple
    assert all(type(name) is str for name in kwargs)


@pytest.mark.parametrize(
    "value",
    [
        [], [[]], [1, {}], [[], {1: 2}], [[], []], [[], {}, 1], {}, "x", [msgpack.ExtType(99, b"\x90"), {}],
        [[msgpack.ExtType(9, msgpack.packb(b"short"))], {}], [[msgpack.ExtType(2, msgpack.packb([[]]))], {}],
        [[msgpack.ExtType(8, msgpack.packb("x"))], {}],
        [[msgpack.ExtType(7, msgpack.packb([10**12, 0, 0]))], {}],
        [[msgpack.ExtType(4, msgpack.packb(5))], {}], [[msgpack.ExtType(10, b"")], {}],
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_call_is_a_value_error(value: Any) -> None:
    with pytest.raises((ValueError, ConfigError)):
        calls.load(msgpack.packb(value), LOCAL)


# Pickle.


@pytest.fixture
def pickling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(calls.VARIABLE, "pickle")


def test_pickle_is_never_read_unless_the_operator_says_so() -> None:
    with pytest.raises(ConfigError, match="serializer"):
        calls.load(pickle.dumps((([],), {})), LOCAL)


@pytest.mark.usefixtures("pickling")
def test_with_pickle_anything_travels_and_msgpack_is_read_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    assert travel(Point(1), colour=Colour.RED) == ((Point(1),), {"colour": Colour.RED})
    assert calls.dump((), {}, LOCAL).startswith(calls.PICKLE)
    monkeypatch.delenv(calls.VARIABLE)
    plain = calls.dump((1, (2,)), {}, LOCAL)
    monkeypatch.setenv(calls.VARIABLE, "pickle")
    assert calls.load(plain, LOCAL) == ((1, (2,)), {})


@pytest.mark.usefixtures("pickling")
def test_pickle_stays_on_this_host() -> None:
    with pytest.raises(ConfigError, match="not allowed at tcp://10"):
        calls.dump((), {}, REMOTE)
    with pytest.raises(ConfigError, match="not allowed at tcp://10"):
        calls.load(pickle.dumps(((), {})), REMOTE)
    assert calls.load(calls.dump((), {}, "tcp://127.0.0.1:5000"), "tcp://127.0.0.1:5000") == ((), {})


def test_a_serializer_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(calls.VARIABLE, "json")
    with pytest.raises(ConfigError, match="'json'"):
        calls.dump((), {}, LOCAL)
