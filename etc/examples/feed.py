# A mule that eats whatever it is fed: by its number, by `any`, or by one of its farms.

import uwsgi

while True:
    message = uwsgi.mule_get_msg()
    print("ate", message)
