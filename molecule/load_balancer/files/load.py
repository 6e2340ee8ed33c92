"""Clients that ask one question after another, streams and plain ones in turns, until a file appears.

Then it prints how they fared as JSON.

    load.py STOP_FILE KEY MODEL [CLIENTS]

They keep their connections, as OpenAI's own clients do: one that the server has closed in the meantime is not used.
"""

import collections
import http.client
import json
import pathlib
import select
import sys
import threading

ANSWER = "The capital of Japan is Tokyo."
stop, key, model = pathlib.Path(sys.argv[1]), *sys.argv[2:4]
counts = collections.Counter()
failures = []


def answer_of(response, streams):
    text = response.read().decode()
    if not streams:
        return json.loads(text)["choices"][0]["message"]["content"]
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    if events[-1] != "[DONE]":
        raise EOFError("the stream was cut: " + text[-80:])
    return "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1])


def client(number):
    connection = None
    while not stop.exists():
        streams = (number + counts[number]) % 2 == 0
        counts[number] += 1
        if connection is not None and (connection.sock is None or select.select([connection.sock], [], [], 0)[0]):
            connection.close()
            connection = None
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=60)
            counts["connections"] += 1
        messages = [{"role": "user", "content": "What is the capital of Japan?"}]
        body = json.dumps({"model": model, "messages": messages, "stream": streams})
        headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
        try:
            connection.request("POST", "/v1/chat/completions", body, headers)
            response = connection.getresponse()
            if response.status != 200:
                raise ValueError(f"{response.status} {response.read()[:200]}")
            said = answer_of(response, streams)
            if said != ANSWER:
                raise ValueError(f"it said {said!r}")
            counts["streams" if streams else "plain"] += 1
        except Exception as error:
            failures.append(repr(error))
            connection.close()
            connection = None


threads = [threading.Thread(target=client, args=(number,)) for number in range(int((sys.argv[4:] or [12])[0]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({name: counts[name] for name in ("streams", "plain", "connections")} | {"failures": failures}))
