"""Everything that zmule raises on purpose, under one base.

Each class has the `code` that stands for it on the wire (docs/protocol.rst) and the `exit_code` that a
command ends with (sysexits.h numbers, docs/commands.rst), so that one table serves the broker, the
clients and the shell.
"""

from __future__ import annotations


class ZmuleError(Exception):
    """Base of every error that zmule raises.

    Attributes:
        code: the error's name on the wire.
        exit_code: what a command that ends with this error exits with.
    """

    code = "error"
    exit_code = 1


class ProtocolError(ZmuleError):
    """A peer sent what the protocol does not allow."""

    code = "protocol"


class UnknownMule(ZmuleError):
    """No mule of that number is configured or connected."""

    code = "unknown-mule"


class UnknownFarm(ZmuleError):
    """No farm of that name is configured or has a member."""

    code = "unknown-farm"


class NotProgrammed(ZmuleError):
    """The mule is signal-only: its code does not read messages."""

    code = "not-programmed"


class MessageTooLarge(ZmuleError):
    """The message is longer than the broker's `max_message`."""

    code = "too-large"


class QueueFull(ZmuleError):
    """A limit on waiting messages was reached; nothing was queued. Try again later."""

    code = "queue-full"
    exit_code = 75


class UnknownLetter(ZmuleError):
    """There is no dead letter of that id."""

    code = "unknown-letter"


class StoreUnavailable(ZmuleError):
    """The broker's store cannot write at present; nothing was queued. Try again later."""

    code = "store"
    exit_code = 75


class BrokerUnavailable(ZmuleError):
    """The broker could not be reached, or did not answer in time."""

    code = "unavailable"
    exit_code = 69


class NumberInUse(ZmuleError):
    """Another process is that mule already, or the number is kept for a configured one."""

    code = "number-in-use"


class NotPermitted(ZmuleError):
    """The broker does not allow this peer to do that."""

    code = "not-permitted"
    exit_code = 77


class EndpointInUse(ZmuleError):
    """Another broker holds the endpoint."""

    code = "endpoint-in-use"
    exit_code = 73


class UnknownTarget(ZmuleError):
    """A signal cannot have that target."""

    code = "unknown-target"


class SignalConflict(ZmuleError):
    """The signal is registered for another target already."""

    code = "signal-conflict"


class UnknownLock(ZmuleError):
    """There is no lock of that number."""

    code = "unknown-lock"


class Deadlock(ZmuleError):
    """This thread holds the lock already, and would wait for itself for ever."""

    code = "deadlock"


class NotHolder(ZmuleError):
    """The lock is another's, or nobody's: it cannot be unlocked from here."""

    code = "not-holder"


class LockBusy(ZmuleError):
    """The lock was not to be had at once."""

    code = "lock-busy"
    exit_code = 75


class LockTimeout(ZmuleError):
    """The lock was not to be had in time."""

    code = "lock-timeout"
    exit_code = 75


class LockLimit(ZmuleError):
    """This process holds or waits for too many locks."""

    code = "lock-limit"


class WrongValue(ZmuleError):
    """An argument is not what it should be."""

    code = "wrong-value"


class ConfigError(ZmuleError):
    """The configuration is wrong: what, where, and what to write instead."""

    code = "config"
    exit_code = 78


class MuleStopped(SystemExit):
    """Raised in a thread that asks for a message of a mule that is stopping, once it holds none.

    It is a `SystemExit`, so that a plain loop ends as a clean exit does.
    """


BY_CODE: dict[str, type[ZmuleError]] = {cls.code: cls for cls in ZmuleError.__subclasses__()}


def from_code(code: str, text: str) -> ZmuleError:
    """Return the error that a broker's refusal stands for; an unknown code gives a plain `ZmuleError`."""
    return BY_CODE.get(code, ZmuleError)(text)


def too_large(size: int, limit: int) -> MessageTooLarge:
    """Return the error for a message over the limit, both in bytes."""
    return MessageTooLarge(f"the message has {size} bytes, the limit (max_message) is {limit}")
