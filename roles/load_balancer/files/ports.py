"""Prints which of the given addresses and ports cannot be listened on, and why. That HAProxy has one is as it should be."""

import errno
import re
import socket
import subprocess
import sys


def trouble(address, port):
    taker = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taker.bind((address, int(port)))
        taker.listen()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return error.strerror
        holders = subprocess.check_output(["ss", "-Hltnp", "sport", "=", ":" + port], universal_newlines=True)
        names = set(re.findall('"([^"]+)"', holders))
        return "" if names == {"haproxy"} else "%s has it" % (", ".join(sorted(names - {"haproxy"})) or "somebody")
    finally:
        taker.close()
    return ""


for address, port in zip(sys.argv[1::2], sys.argv[2::2]):
    if trouble(address, port):
        print("%s port %s (%s)" % (address, port, trouble(address, port)))
