# A mule with two threads that wait: one for messages to its farms, one for all others.

from threading import Thread

import uwsgi


def wallow_with_the_farm():
    while True:
        print("wallowed in", uwsgi.farm_get_msg())


def wallow_alone():
    while True:
        print("wallowed in", uwsgi.mule_get_msg(farms=False))


Thread(target=wallow_with_the_farm, daemon=True).start()
wallow_alone()
