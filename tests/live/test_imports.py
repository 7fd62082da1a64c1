"""What a mule's program can import, and that nothing that lies beside it gets into the way."""

from __future__ import annotations

from tests.conftest import Zmuled, wait_until

STANDARD = ("signal", "queue", "types", "select", "email", "pickle", "uuid", "socket", "logging", "threading")


def test_what_lies_beside_a_script_does_not_hide_the_standard_library(zmuled: Zmuled) -> None:
    (zmuled.folder / "pkg").mkdir()
    zmuled.program("pkg/email.py", "def send(): print('sent')")
    zmuled.program("pkg/sibling.py", "def help(): print('helped')")
    zmuled.program(
        "pkg/mule.py",
        """
        import email.message
        import sibling
        import uwsgi
        from pkg.email import send
        send(), sibling.help()
        uwsgi.mule_get_msg()
        """,
    )
    zmuled.start("--mule=pkg/mule.py")
    wait_until(lambda: {"sent", "helped"} <= {line[8:] for line in zmuled.output().splitlines()})


def test_names_of_the_standard_library_in_the_working_folder_do_not_hide_it_from_zmule(
    zmuled: Zmuled,
) -> None:
    for module in STANDARD:
        zmuled.program(f"{module}.py", "raise RuntimeError('this is not the standard library')")
    zmuled.program(
        "mule.py",
        """
        import uwsgi, uwsgidecorators
        uwsgi.lock()
        uwsgi.unlock()
        uwsgi.mule_msg('again', 1)
        while True: print(uwsgi.mule_get_msg())
        """,
    )
    zmuled.start("--mule=mule.py").client().mule_msg("hello", 1)
    wait_until(lambda: "mule 1: b'hello'" in zmuled.output(), "the message")
