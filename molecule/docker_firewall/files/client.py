"""What a client of a port sees.

client.py reach NAME=URL...        the names that answer, as JSON
client.py flood HOST FILE PORT...  connects without a pause until FILE is there; how often it got through or not
client.py hold HOST PORT FILE      asks, waits until FILE is there, and asks again on the same connection
"""

import collections
import concurrent.futures
import http.client
import json
import os
import socket
import sys
import threading
import time
import urllib.request

# Longer than an answer takes on a busy machine.
PATIENCE = 4


def reach(*targets):
    def answers(target):
        try:
            with urllib.request.urlopen(target.split("=", 1)[1], timeout=PATIENCE) as answer:
                return answer.status == 200
        except OSError:
            return False

    with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
        answered = dict(zip(targets, pool.map(answers, targets), strict=True))
    return sorted(target.split("=")[0] for target in targets if answered[target])


def flood(host, file, *ports):
    seen = {port: collections.Counter(through=0, refused=0, silent=0, unreachable=0) for port in ports}
    deadline = time.monotonic() + 120

    def knock(port):
        while not os.path.exists(file) and time.monotonic() < deadline:
            try:
                socket.create_connection((host, int(port)), timeout=0.2).close()
                seen[port]["through"] += 1
            except ConnectionRefusedError:
                seen[port]["refused"] += 1
                time.sleep(0.001)
            except TimeoutError:
                seen[port]["silent"] += 1
            except OSError:
                seen[port]["unreachable"] += 1
                time.sleep(0.01)

    threads = [threading.Thread(target=knock, args=(port,)) for port in ports * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"ended": os.path.exists(file), "ports": seen}


def hold(host, port, file):
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.connect()
    connection.auto_open = 0
    seen = []
    for _number in range(2):
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        seen.append(answer.status)
        open(file + ".held", "w").close()
        deadline = time.monotonic() + 100
        while not os.path.exists(file) and time.monotonic() < deadline:
            time.sleep(0.05)
    return seen


print(json.dumps({"reach": reach, "flood": flood, "hold": hold}[sys.argv[1]](*sys.argv[2:])))
