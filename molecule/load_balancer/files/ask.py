"""Asks a list of questions, which is JSON on stdin, and prints the answers as JSON.

A question has path, and may have url, ca, method, key, headers and body (an object or a string). More of it:

    fill   so many more bytes in the body, behind "model" where model_first is set, else before it
    half   send half of the body, and hold the connection for so many seconds
    after  begin after so many seconds; questions that have it are asked side by side
"""

import concurrent.futures
import http.client
import json
import ssl
import sys
import time
import urllib.parse


def body_of(question):
    body = question.get("body", "")
    if isinstance(body, str):
        return body.encode()
    if "fill" in question:
        model = body.pop("model")
        rest = {**body, "messages": [{"role": "user", "content": "x " * (question["fill"] // 2)}]}
        body = {"model": model, **rest} if question.get("model_first") else {**rest, "model": model}
    return json.dumps(body).encode()


def connection_to(question):
    url = urllib.parse.urlsplit(question.get("url", "http://127.0.0.1:8000"))
    if url.scheme == "http":
        return http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    context = ssl.create_default_context(cafile=question["ca"])
    return http.client.HTTPSConnection(url.hostname, url.port, timeout=60, context=context)


def send_half(connection, question, headers, body):
    connection.putrequest("POST", question["path"])
    for name, value in {**headers, "Content-Length": len(body)}.items():
        connection.putheader(name, value)
    connection.endheaders(body[: len(body) // 2])
    time.sleep(question["half"])
    return {"status": 0, "headers": {}, "text": "", "pieces": 0}


def ask(question):
    time.sleep(question.get("after", 0))
    body = body_of(question)
    headers = dict(question.get("headers", {}))
    if "key" in question:
        headers["Authorization"] = "Bearer " + question["key"]
    if body:
        headers.setdefault("Content-Type", "application/json")
    connection = connection_to(question)
    try:
        if "half" in question:
            return send_half(connection, question, headers, body)
        method = question.get("method", "POST" if body else "GET")
        connection.request(method, question["path"], body or None, headers)
        answer = connection.getresponse()
        pieces = list(iter(answer.read1, b""))
        headers = {name.lower(): value for name, value in answer.getheaders()}
        text = b"".join(pieces).decode()
        return {"status": answer.status, "headers": headers, "text": text, "pieces": len(pieces)}
    except OSError as error:
        return {"status": 0, "headers": {}, "text": repr(error), "pieces": 0}
    finally:
        connection.close()


questions = json.load(sys.stdin)
side_by_side = any("after" in question for question in questions)
with concurrent.futures.ThreadPoolExecutor(len(questions) if side_by_side else 1) as pool:
    print(json.dumps(list(pool.map(ask, questions))))
