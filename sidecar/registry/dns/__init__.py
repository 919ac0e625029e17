"""Asking name servers, without threads and with the TTL of what they say. In reading order:

`directions` says who is asked, and how (the configuration or resolv.conf); `answer` is what one question and one
answer are; `client` asks the servers in turn over UDP and TCP; `resolver` makes addresses of names, and places of SRV
records.

dnspython reads the messages. Its own queries (`dns.asyncquery`) do not fit: their sockets are not connected, so that a
server that is not there costs the whole wait; they measure by the wall clock; they take a socket for each question; and
they load twice as much.
"""
