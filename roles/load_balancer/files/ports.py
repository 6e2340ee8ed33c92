"""Prints which of the given addresses and ports cannot be listened on, and why. Those that HAProxy has are its own."""

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


arguments = iter(sys.argv[1:])
for address in arguments:
    port = next(arguments)
    why = trouble(address, port)
    if why:
        print("%s port %s (%s)" % (address, port, why))
