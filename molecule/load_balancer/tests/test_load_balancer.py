"""Who may ask what, where it goes, what is refused and how, and what nobody gets to read."""

import json
import re

import pytest

RESEARCH = "sk-of-research-that-nobody-may-see"
SALES = "sk-of-sales-that-nobody-may-see"
ENGINES = "sk-of-engines-that-nobody-may-see"
CHAT = "/v1/chat/completions"
FOLDER = "/etc/haproxy/llmops-vllm"
SENTENCE = "The capital of Japan is Tokyo."
NASTY = r"""
    / /v1 /v1/ /metrics /version /ping /load /pause /resume /invocations /tokenize /double/faults /health/ /stats
    /v1/load_lora_adapter /v1/unload_lora_adapter /V1/models //v1/models /v1//models /v1/models/ /v1/./models
    /v1/x/../models /v1/models/../../metrics /v1/models/%2e%2e/%2e%2e/metrics /v1/models%2f..%2f..%2fmetrics
    /v1%2fmodels /%76%31/models /v1/models%00 /v1/models;x /v1/models#/../../metrics /v1\models
    /v1/models\..\..\metrics http://engine/metrics http://engine//v1/models /metrics?/v1/models *
"""


def chat(model="big", **more):
    return {"model": model, "messages": [{"role": "user", "content": "What is the capital of Japan?"}], **more}


def ask(host, *questions):
    return json.loads(host.check_output("printf %%s %s | python3 /srv/ask.py", json.dumps(questions)))


def statuses(answers):
    return [answer["status"] for answer in answers]


def error_of(answer):
    assert answer["headers"]["content-type"] == "application/json"
    return json.loads(answer["text"])["error"]


def seen_by(host, engine):
    """The requests that an engine has got."""
    file = host.file(f"/srv/{engine}.requests")
    return [json.loads(line) for line in file.content_string.splitlines()] if file.exists else []


def socket(host, command):
    return host.check_output("echo %s | socat - UNIX-CONNECT:/run/haproxy/admin.sock", command)


def log_of(host):
    return host.check_output("journalctl --unit haproxy.service --output cat --no-pager")


@pytest.mark.parametrize(
    "key",
    [{}]
    + [{"key": key} for key in ("", "wrong", RESEARCH[:-1], RESEARCH + " x", f"{RESEARCH}, {SALES}")]
    + [{"headers": {"Authorization": value}} for value in (RESEARCH, f"Basic {RESEARCH}", f"Bearer{RESEARCH}")]
    + [{"headers": {"X-Api-Key": "wrong"}}, {"key": "wrong", "headers": {"X-Api-Key": ""}}],
    ids=str,
)
def test_nobody_asks_without_a_key(host, key):
    listed, asked = ask(host, {"path": "/v1/models", **key}, {"path": CHAT, "body": chat(), **key})
    for answer in (listed, asked):
        assert answer["status"] == 401
        assert error_of(answer)["code"] == "invalid_api_key"
        assert error_of(answer)["type"] == "invalid_request_error"
        assert answer["headers"]["www-authenticate"] == "Bearer"


def test_each_client_asks_with_its_own_key(host):
    keys = [{"key": RESEARCH}, {"key": SALES}]
    keys += [{"headers": headers} for headers in ({"Authorization": f"bearer  {SALES}"}, {"X-Api-Key": RESEARCH})]
    answers = ask(host, *({"path": CHAT, "body": chat(), **key} for key in keys))
    assert statuses(answers) == [200] * 4
    assert {json.loads(answer["text"])["choices"][0]["message"]["content"] for answer in answers} == {SENTENCE}


def test_only_listed_paths_get_through(host):
    paths = NASTY.split()
    before = [len(seen_by(host, engine)) for engine in ("gpu1-big", "gpu2-big", "gpu1-small")]
    answers = ask(host, *({"path": path, "key": RESEARCH} for path in paths))
    # To HAProxy's parser, which comes first, some of them are no HTTP at all.
    refused = {path for path, answer in zip(paths, answers, strict=True) if answer["status"] == 400}
    assert refused <= {"/v1/models#/../../metrics", "*"}
    assert set(statuses(answers)) == {400, 404}
    assert {error_of(answer)["type"] for answer in answers if answer["status"] == 404} == {"invalid_request_error"}
    assert [len(seen_by(host, engine)) for engine in ("gpu1-big", "gpu2-big", "gpu1-small")] == before


def test_engines_get_their_own_key_and_never_a_clients(host):
    headers = {"X-Forwarded-For": "192.0.2.1", "X-Real-IP": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
    question = {"path": CHAT, "headers": {**headers, "X-Api-Key": SALES}}
    answers = ask(
        host,
        *[{**question, "body": chat(), "key": RESEARCH}] * 4,
        {**question, "body": chat("org/small-1b"), "key": SALES},
    )
    assert statuses(answers) == [200] * 5
    big, small = seen_by(host, "gpu1-big") + seen_by(host, "gpu2-big"), seen_by(host, "gpu1-small")
    assert {request["headers"].get("authorization") for request in big} == {f"Bearer {ENGINES}"}
    assert {request["headers"].get("authorization") for request in small} == {None}
    for request in big + small:
        assert request["headers"]["x-forwarded-for"] == "127.0.0.1"
        assert request["headers"]["x-forwarded-proto"] == "http"
        assert not {"x-api-key", "x-real-ip", "forwarded"} & set(request["headers"])
        assert not re.search("192.0.2.1|of-research|of-sales", json.dumps(request))


def test_both_engines_of_a_model_are_asked(host):
    before = [len(seen_by(host, engine)) for engine in ("gpu1-big", "gpu2-big", "gpu1-small")]
    answers = ask(host, *[{"path": CHAT, "body": chat(), "key": SALES, "after": 0}] * 8)
    assert statuses(answers) == [200] * 8
    after = [len(seen_by(host, engine)) for engine in ("gpu1-big", "gpu2-big", "gpu1-small")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [4, 4, 0]


def test_models_are_listed(host):
    (answer,) = ask(host, {"path": "/v1/models", "key": SALES})
    document = json.loads(answer["text"])
    assert document["object"] == "list"
    assert [model["id"] for model in document["data"]] == ["big-70b", "big", "org/small-1b"]
    assert {model["object"] for model in document["data"]} == {"model"}


def test_a_request_goes_to_an_engine_that_has_its_model(host):
    bodies = [chat("big-70b"), chat("org/small-1b"), json.dumps(chat("org/small-1b")).replace("/", "\\/")]
    bodies.append({"stream": False, "metadata": {"model": "big"}, **chat("org/small-1b")})
    answers = ask(host, *({"path": CHAT, "body": body, "key": SALES} for body in bodies))
    assert statuses(answers) == [200] * 4
    assert [json.loads(answer["text"])["model"] for answer in answers] == ["big-70b"] + ["org/small-1b"] * 3


def test_a_model_that_nobody_has(host):
    names = ["gpt-4o", 'say "no" \\', "big ", "日本", 7, "x" * 5000]
    bodies = [json.dumps(chat(name), ensure_ascii=False) for name in names]
    answers = ask(host, *({"path": CHAT, "body": body, "key": SALES} for body in bodies))
    for name, answer in zip(names, answers, strict=True):
        assert answer["status"] == 404
        error = error_of(answer)
        assert error["message"] == f"The model `{str(name)[:200]}` does not exist or you do not have access to it."
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", "model_not_found")


def test_a_request_without_a_model(host):
    bodies = ["", "no JSON", "[]", '{"messages": [{"model": "big"}]}', '{"model": {}}', '{"model": null}']
    answers = ask(host, *({"path": CHAT, "body": body, "key": SALES, "method": "POST"} for body in bodies))
    assert statuses(answers) == [400] * 6
    assert {error_of(answer)["message"] for answer in answers} == {"you must provide a model parameter"}


def test_the_form_of_an_upload(host):
    """The double has no such path, but says so itself."""

    def form(*fields):
        parts = {
            "model": '--x\r\nContent-Disposition: form-data; name="model"\r\n\r\norg/small-1b\r\n',
            "file": '--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
            "Content-Type: audio/wav\r\n\r\nRIFF\0\0\0\0WAVE\r\n",
        }
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        body = "".join(parts[field] for field in fields) + "--x--\r\n"
        return {"path": "/v1/audio/transcriptions", "key": SALES, "headers": headers, "body": body}

    before = len(seen_by(host, "gpu1-small"))
    first, last = ask(host, form("model", "file"), form("file", "model"))
    assert (first["status"], json.loads(first["text"])) == (404, {"detail": "Not Found"})
    assert [request["path"] for request in seen_by(host, "gpu1-small")[before:]] == ["/v1/audio/transcriptions"]
    assert last["status"] == 400
    assert error_of(last)["message"] == "The form has no field model before its file: send it first."


def test_large_bodies(host):
    question = {"path": CHAT, "key": SALES}
    last, first = {"model_first": False}, {"model_first": True}
    cases = [(100_000, last), (262_000, last), (300_000, first), (3_000_000, first), (300_000, last), (3_000_000, last)]
    answers = ask(host, *({**question, "body": chat(), "fill": fill, **where} for fill, where in cases))
    assert statuses(answers) == [200, 200, 200, 200, 400, 400]
    for answer in answers[4:]:
        assert error_of(answer)["message"] == (
            'The model is not named within the first 262144 bytes of the body: send "model" before all else.'
        )


def test_tokens_come_as_they_are_made(host):
    (answer,) = ask(host, {"path": CHAT, "body": chat(stream=True), "key": SALES})
    assert answer["status"] == 200
    assert answer["text"].endswith("data: [DONE]\n\n")
    assert answer["pieces"] >= 6


def test_a_full_queue_and_a_long_one(host):
    engine = {"url": "http://127.0.1.1:9002", "path": "/double/faults"}
    question = {"path": CHAT, "body": chat("org/small-1b"), "key": SALES}
    answers = ask(
        host,
        {**engine, "body": {"hang": True}, "after": 0},
        # One at the engine, two that wait, three too many.
        *({**question, "after": 0.5 + number * 0.2} for number in range(6)),
        {**engine, "body": {"hang": False}, "after": 5},
    )[1:-1]
    assert statuses(answers) == [200, 503, 503, 503, 503, 503]
    assert {answer["headers"]["retry-after"] for answer in answers[1:]} == {"7"}
    said = [error_of(answer)["message"] for answer in answers[1:]]
    assert said[:2] == ["No server could take the request: try again later."] * 2
    assert said[2:] == ["Too many requests wait already: try again later."] * 3
    assert {error_of(answer)["type"] for answer in answers[1:]} == {"server_error"}


def test_a_body_that_comes_slowly_takes_no_place(host):
    """This engine has one place."""
    question = {"path": CHAT, "body": chat("org/small-1b"), "key": SALES}
    held, quick = ask(host, {**question, "half": 4, "after": 0}, {**question, "after": 1})
    assert (held["status"], quick["status"]) == (0, 200)


def test_an_engine_stops_when_its_client_has_gone(host):
    def aborted():
        page = ask(host, {"url": "http://127.0.1.1:9002", "path": "/metrics"})[0]["text"]
        return re.search('finished_reason="abort"} ([0-9.]+)', page).group(1)

    before = aborted()
    gone = host.run(
        "curl --silent --max-time 0.3 --header %s --data %s http://127.0.0.1:8000" + CHAT,
        f"Authorization: Bearer {SALES}",
        json.dumps(chat("org/small-1b", max_tokens=1000, ignore_eos=True)),
    )
    assert gone.rc == 28
    assert float(aborted()) == float(before) + 1


def test_a_request_that_an_engine_died_of_is_not_given_to_another(host):
    """A new one is, while nobody has noticed yet."""
    script = """
        printf %s "$1" | python3 /srv/ask.py >/tmp/answer &
        until unit=$(grep --files-with-matches which-died /srv/gpu?-big.requests); do sleep 0.05; done
        systemctl kill --signal KILL "$(basename "$unit" .requests)"
        printf %s "$2" | python3 /srv/ask.py
        wait
        cat /tmp/answer
    """
    died = {"path": f"{CHAT}?which-died", "body": chat(), "key": SALES}
    others = [{"path": CHAT, "body": chat(), "key": SALES, "after": 0}] * 6
    output = host.check_output("sh -c %s sh %s %s", script, json.dumps([died]), json.dumps(others))
    second, first = (json.loads(line) for line in output.splitlines())
    assert statuses(second) == [200] * 6
    assert statuses(first) == [502]
    assert error_of(first[0])["type"] == "server_error"
    paths = [request["path"] for engine in ("gpu1-big", "gpu2-big") for request in seen_by(host, engine)]
    assert paths.count(f"{CHAT}?which-died") == 1
    # For the tests that come after this one.
    come_back = "curl --silent --fail --retry 30 --retry-connrefused --retry-delay 1 http://127.0.1.%s:9001/health"
    for number in ("1", "2"):
        host.check_output(come_back, number)


def test_health(host):
    whole = ask(host, {"path": "/health"})[0]
    socket(host, "set server small/gpu1:small state maint")
    without, asked = ask(host, {"path": "/health"}, {"path": CHAT, "body": chat("org/small-1b"), "key": SALES})
    socket(host, "set server small/gpu1:small state ready")
    assert (whole["status"], whole["text"]) == (200, "ok\n")
    assert (without["status"], without["text"]) == (503, "small has no server\n")
    assert (asked["status"], asked["headers"]["retry-after"]) == (503, "7")
    assert statuses(ask(host, {"path": "/health"})) == [200]


def test_statistics_are_for_the_host_alone(host):
    address = host.check_output("hostname --ip-address").split()[0]
    own = [{"url": "http://127.0.0.1:8404", "path": path} for path in ("/stats", "/metrics")]
    outer = [{**question, "url": f"http://{address}:8404"} for question in own]
    answers = ask(host, *own, *outer, {"url": f"http://{address}:8000", "path": "/v1/models", "key": SALES})
    assert statuses(answers) == [200, 200, 0, 0, 200]
    assert 'haproxy_server_status{proxy="big",server="gpu1:big"' in answers[1]["text"]
    assert "refused" in answers[2]["text"]


def test_the_log_names_clients_and_tells_no_secrets(host):
    body = chat(user="a-body-that-nobody-may-see")
    questions = [{"path": CHAT, "body": body, "key": key} for key in (RESEARCH, SALES)]
    questions.append({"path": "/v1/models?key=a-query-that-nobody-may-see", "key": RESEARCH})
    questions.append({"path": "/v1/models", "key": "a-wrong-key-that-nobody-may-see"})
    assert statuses(ask(host, *questions)) == [200, 200, 200, 401]
    log = log_of(host)
    assert "nobody-may-see" not in log
    for client, at, how in (
        ("research", r"backend=big server=gpu\d:big", "status=200 end=---- method=POST path=/v1/chat/completions"),
        ("sales", r"backend=big server=gpu\d:big", "status=200 end=---- method=POST path=/v1/chat/completions"),
        ("-", "backend=llm server=<NOSRV>", "status=401 end=LR-- method=GET path=/v1/models"),
    ):
        times = r"queued=-?\d+ connected=-?\d+ first=-?\d+ total=\d+ received=\d+ sent=\d+"
        assert re.search(rf"^client={client} from=127.0.0.1:\d+ {at} {how} {times} ", log, re.MULTILINE)
    assert "path=/health " not in log


def test_secrets_are_in_files_of_root_alone(host):
    folder = host.file(FOLDER)
    assert (folder.user, folder.mode) == ("root", 0o700)
    names = sorted(host.check_output(f"ls {FOLDER}").split())
    assert [name.split("-")[0] for name in names] == ["clients", "engine"]
    clients, engine = (host.file(f"{FOLDER}/{name}") for name in names)
    for file in (clients, engine, host.file("/var/lib/haproxy/llmops-vllm.state")):
        assert (file.user, file.group, file.mode) == ("root", "root", 0o600), file.path
    assert not re.search(f"{RESEARCH}|{SALES}", clients.content_string)
    assert len(re.findall("^[0-9a-f]{64} (research|sales)$", clients.content_string, re.M)) == 2
    assert f"\nbig {ENGINES}\n" in engine.content_string
    config = host.file("/etc/haproxy/haproxy.cfg")
    assert (config.user, config.mode) == ("root", 0o644)
    assert "nobody-may-see" not in config.content_string
    assert not re.search("[0-9a-f]{64}", config.content_string)
    socket_file = host.file("/run/haproxy/admin.sock")
    assert (socket_file.user, socket_file.mode) == ("root", 0o600)
    for process in host.check_output("pidof haproxy").split():
        for name in ("cmdline", "environ"):
            assert "nobody-may-see" not in host.file(f"/proc/{process}/{name}").content_string


def test_service_runs_now_and_after_a_reboot(host):
    service = host.service("haproxy")
    assert service.is_running
    assert service.is_enabled
    # What HAProxy itself has to say against its configuration.
    assert host.run("haproxy -c -f /etc/haproxy/haproxy.cfg 2>&1 | grep -E 'WARNING|ALERT'").stdout == ""
