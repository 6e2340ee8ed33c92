#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_probe
short_description: Tells the truth about a vLLM server
version_added: 0.1.0
author: The llmops.vllm authors (@llmops)
description:
  - Looks at a server until it is as expected, or will not be any more, or the time is over.
  - C(/health) alone says little, for an engine that hangs answers it for hours. A server is ready when it lists the
    model and has generated tokens.
  - When it is not as expected, the module fails with one sentence that names cause and way out, and returns both in
    RV(diagnosis). With O(container), it reads them from the state of the container and from its log.
  - While it waits, its action plugin shows how far the server is.
attributes:
  check_mode:
    support: full
    description: Looks as it always does, but leaves a container that Docker restarts for ever running.
  diff_mode:
    support: none
    description: The module changes nothing.
  idempotent:
    support: full
    description: The module changes nothing, unless it stops a container that Docker restarts for ever.
requirements:
  - requests
  - docker, when O(container) is given
options:
  url:
    description: Address of the server, such as C(http://127.0.0.1:30080).
    type: str
    required: true
    version_added: 0.1.0
  api_key:
    description: Key that the server wants.
    type: str
    version_added: 0.1.0
  api_key_file:
    description: File on the host that holds the key. Not together with O(api_key).
    type: path
    version_added: 0.1.0
  validate_certs:
    description: Whether to check the server's certificate when O(url) begins with C(https://).
    type: bool
    default: true
    version_added: 0.2.0
  ca_path:
    description: File with the certificates of the authorities to check the server's by, instead of the usual ones.
    type: path
    version_added: 0.2.0
  client_cert:
    description: File with the certificate, and unless O(client_key) is given the key, to show to the server.
    type: path
    version_added: 0.2.0
  client_key:
    description: File with the key of O(client_cert).
    type: path
    version_added: 0.2.0
  expect:
    description:
      - What the server has to be.
      - V(ready) - it passes O(checks), by default that it is up, lists the model, and answers one short question.
      - V(live) - it is ready, or busy and making progress. A busy server is not given one request more. For alerts.
      - V(idle) - no request runs or waits in it, or it is gone. For a drain.
      - V(down) - nobody answers, and O(container) does not run.
    type: str
    choices: [ready, live, idle, down]
    default: ready
    version_added: 0.2.0
  model:
    description:
      - Name under which the model has to be served.
      - Without it, the first model of the list is asked.
    type: str
    version_added: 0.1.0
  expect_model:
    description:
      - What has to be behind the name - the end of the path or the repository that the server was started with.
    type: str
    version_added: 0.2.0
  task:
    description:
      - What the model does, and with that what it is asked by default. V(generate) is a chat question, V(embed) a text
        for C(/v1/embeddings), V(score) two texts for C(/score).
    type: str
    choices: [generate, embed, score]
    default: generate
    version_added: 0.2.0
  checks:
    description:
      - What a ready server has to pass, in this order. By default V(http), V(models), and the question of O(task).
      - V(http) - C(/health) answers 200.
      - V(models) - the list has O(model), which is O(expect_model).
      - V(template) - the chat template takes a question, by C(/tokenize). Generates nothing.
      - V(chat), V(completion) - the model answers O(prompt), streamed, at temperature 0.
      - V(embeddings), V(score) - it answers with a vector, or a score.
      - V(metrics) - C(/metrics) counts requests.
      - V(progress) - the counters move, or there is nothing to do.
    type: list
    elements: str
    choices: [http, models, template, chat, completion, embeddings, score, metrics, progress]
    version_added: 0.2.0
  capabilities:
    description: Whether to measure what the model can do as well (RV(capabilities)). Costs a dozen short answers.
    type: bool
    default: false
    version_added: 0.2.0
  prompt:
    description: The question for the model.
    type: str
    default: 日本の都道府県名をランダムに１つ回答してください。その都道府県名の魅力を3つ答えてください。
    version_added: 0.1.0
  max_tokens:
    description: The longest answer, in tokens.
    type: int
    default: 32
    version_added: 0.1.0
  expect_text:
    description:
      - Text that the answer has to contain, upper or lower case.
      - That of V(chat), or of V(completion) when V(chat) is not among O(checks).
    type: str
    version_added: 0.1.0
  warm_up:
    description:
      - So many requests at once, like that of the last of O(checks) that asks something, have to be answered as well
        before the server counts as ready. They make the kernels and fill the caches that users would wait for.
    type: int
    default: 0
    version_added: 0.2.0
  container:
    description:
      - Name of the server's container, to see how far it starts, and why it ended.
      - A container that Docker starts again and again without success is stopped.
    type: str
    version_added: 0.1.0
  timeout:
    description: Seconds until the server has to be as expected. V(0) means one look.
    type: int
    default: 1800
    version_added: 0.1.0
  request_timeout:
    description: Seconds that one answer may take.
    type: int
    default: 30
    version_added: 0.1.0
  interval:
    description: Seconds between two looks.
    type: float
    default: 1
    version_added: 0.1.0
  grace:
    description:
      - Seconds after the server came up in which it may still be too slow to answer, since its first answers make
        kernels and fill caches.
    type: int
    default: 120
    version_added: 0.2.0
  failures:
    description:
      - So many failed looks in a row, after O(grace), and the server counts as hung or failed before O(timeout).
      - Also so many restarts by Docker, and they are an endless loop.
    type: int
    default: 3
    version_added: 0.2.0
  progress_file:
    description: File for the line that the action plugin shows. Set by the action plugin.
    type: path
    version_added: 0.1.0
"""

EXAMPLES = r"""
- name: The runbook's question, as a task
  llmops.vllm.vllm_probe:
    url: http://127.0.0.1:30080
    model: karakuri-70b
    container: vllm
    max_tokens: 200

- name: Wait until the server has answered all that it was asked, for five minutes at most
  llmops.vllm.vllm_probe:
    url: http://127.0.0.1:30080
    expect: idle
    timeout: 300

- name: Learn what the model can do
  llmops.vllm.vllm_probe:
    url: https://llm.example.com
    api_key_file: /etc/llmops-vllm/karakuri-70b/api_key
    checks: [models, template, chat]
    capabilities: true
    timeout: 0
"""

RETURN = r"""
url:
  description: Address of the server.
  returned: always
  type: str
  sample: http://127.0.0.1:30080
verdict:
  description:
    - What the server is. V(starting); V(ready), it has answered; V(saturated), busy, and its counters move; V(hung),
      it has requests and nothing moves; V(failed), it ended or answers wrongly; V(down), nobody is there, or it was
      stopped; V(idle), no request is in it.
    - V(unknown) is one that the module could not even look at.
  returned: always
  type: str
  sample: ready
diagnosis:
  description: Why the server is not as expected.
  returned: failure
  type: dict
  contains:
    code:
      description: A word for programs, such as V(kv_cache_too_small). V(unknown) when no rule knows the failure.
      type: str
      sample: max_model_len_too_long
    cause:
      description: What is wrong.
      type: str
      sample: 'the container ''vllm'' failed: max_model_len is 999999, but the model was made for 8192'
    remedy:
      description: The way out.
      type: str
      sample: set max_model_len to 8192 or less
    evidence:
      description: The lines of the log that show it, at most five.
      type: list
      elements: str
      sample: ['Value error, User-specified max_model_len (999999) is greater than the derived max_model_len']
version:
  description: Version that the server gives, or an empty string when it gives none.
  returned: when O(expect) is V(ready) or V(live), and the server answered
  type: str
  sample: 0.32.0
model:
  description: Name of the model that answered.
  returned: when a model was asked
  type: str
  sample: karakuri-70b
max_model_len:
  description: The longest context in tokens, as the server lists it.
  returned: when V(models) was checked
  type: int
  sample: 4095
kv_cache_tokens:
  description: Tokens that the KV cache holds.
  returned: when O(container) is given and its log has it
  type: int
  sample: 23296
startup:
  description: How far the start was at the last look.
  returned: when O(container) was seen starting
  type: dict
  contains:
    phase:
      description: Such as V(loading weights), V(compiling), V(capturing graphs).
      type: str
      sample: loading weights
    percent:
      description: Of the phase, when its log has it.
      type: int
      sample: 45
    line:
      description: The line of the log that says so.
      type: str
      sample: 'Loading safetensors checkpoint shards:  45% Completed'
running:
  description: Requests that the server works on.
  returned: when its metrics were read
  type: int
  sample: 0
waiting:
  description: Requests that wait in the server.
  returned: when its metrics were read
  type: int
  sample: 0
kv_cache_usage:
  description: Fraction of the KV cache that is in use.
  returned: when its metrics were read
  type: float
  sample: 0.02
waited:
  description: Seconds until the server was as expected.
  returned: always
  type: float
  sample: 31.2
restarts:
  description: How often Docker has started the container again.
  returned: when O(container) is there
  type: int
  sample: 0
restart_loop:
  description: Docker started the container again and again; it is stopped now, except in check mode.
  returned: when it was so
  type: bool
  sample: true
checks:
  description:
    - What each check saw. All have C(ok), C(status) of HTTP and C(latency) in seconds; V(chat) and V(completion) have
      also C(text), C(tokens), C(chunks), C(ttft) (seconds to the first token) and C(tokens_per_second) (of the tokens
      after the first one); V(template) has C(tokens) of the question, V(embeddings) C(dimensions), V(score) C(score),
      V(metrics) C(running), C(waiting) and C(kv_cache_usage), V(progress) C(moving).
  returned: always
  type: dict
  sample:
    http: {ok: true, status: 200, latency: 0.0021}
    models: {ok: true, status: 200, latency: 0.0031}
    chat:
      ok: true
      status: 200
      latency: 0.6
      text: The capital of Japan is Tokyo.
      tokens: 8
      chunks: 8
      ttft: 0.21
      tokens_per_second: 17.9
capabilities:
  description:
    - What the model can do, as it was measured. C(temperature) and C(top_p) say whether the server heeds them.
  returned: when O(capabilities) is V(true)
  type: dict
  sample:
    chat: true
    completions: true
    embeddings: false
    streaming: true
    system_role: true
    temperature: true
    tools: false
    top_p: true
"""

import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.llmops.vllm.plugins.module_utils import _container, _openai, _probe
from ansible_collections.llmops.vllm.plugins.module_utils._progress import PROGRESS_FILE_SPEC, Progress

TOUR_GUIDE_QUESTION = "日本の都道府県名をランダムに１つ回答してください。その都道府県名の魅力を3つ答えてください。"


def make_probe(module: AnsibleModule) -> _probe.Probe:
    """Return the Probe of the module's options; raise BadAddress."""
    params = module.params
    verify = params["validate_certs"] and (params["ca_path"] or True)
    cert = params["client_cert"]
    if params["client_key"]:
        cert = (params["client_cert"], params["client_key"])
    server = _openai.Server(params["url"], read_key(module), params["request_timeout"], verify, cert)
    container = _container.Container(params["container"]) if params["container"] else None
    return _probe.Probe(server, container, params, may_stop=not module.check_mode)


def read_key(module: AnsibleModule) -> str | None:
    """Return the API key, or None."""
    path = module.params["api_key_file"]
    if not path:
        given: str | None = module.params["api_key"]
        return given
    try:
        with open(path, encoding="utf-8") as stream:
            key = stream.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _openai.BadAddress("the key file %s cannot be read: %s" % (path, error)) from None
    if not key:
        raise _openai.BadAddress("the key file %s is empty: write the key into it" % path)
    module.no_log_values.add(key)
    return key


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            url=dict(type="str", required=True),
            api_key=dict(type="str", no_log=True),
            api_key_file=dict(type="path"),
            validate_certs=dict(type="bool", default=True),
            ca_path=dict(type="path"),
            client_cert=dict(type="path"),
            client_key=dict(type="path", no_log=False),
            expect=dict(type="str", choices=list(_probe.EXPECTATIONS), default="ready"),
            model=dict(type="str"),
            expect_model=dict(type="str"),
            task=dict(type="str", choices=list(_probe.TASK_CHECKS), default="generate"),
            checks=dict(type="list", elements="str", choices=list(_probe.CHECKS)),
            capabilities=dict(type="bool", default=False),
            prompt=dict(type="str", default=TOUR_GUIDE_QUESTION),
            max_tokens=dict(type="int", default=32, no_log=False),
            expect_text=dict(type="str"),
            warm_up=dict(type="int", default=0),
            container=dict(type="str"),
            timeout=dict(type="int", default=1800),
            request_timeout=dict(type="int", default=30),
            interval=dict(type="float", default=1),
            grace=dict(type="int", default=120),
            failures=dict(type="int", default=3),
            progress_file=PROGRESS_FILE_SPEC,
        ),
        mutually_exclusive=[("api_key", "api_key_file")],
        required_by={"client_key": "client_cert"},
        supports_check_mode=True,
    )
    if _openai.REQUESTS_ERROR:
        module.fail_json(msg=missing_required_lib("requests"), exception=_openai.REQUESTS_ERROR)
    if module.params["container"] and _container.DOCKER_ERROR:
        module.fail_json(msg=missing_required_lib("docker"), exception=_container.DOCKER_ERROR)
    probe = None
    try:
        probe = make_probe(module)
        progress = Progress(module.params["progress_file"])
        with progress, progress.every(1, probe.line):
            result = probe.run()
    except _openai.BadAddress as error:
        module.fail_json(msg=str(error), **_probe.not_looked(error))
    except _probe.ProbeFailed as error:
        module.fail_json(msg=str(error), diagnosis=error.diagnosis.as_dict(), **(probe.result if probe else {}))
    except Exception as error:
        # What the docker SDK raises differs between its versions and those of requests.
        module.fail_json(
            msg="the probe of %s failed: %s" % (module.params["url"], error),
            exception=traceback.format_exc(),
            **_probe.not_looked(error),
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
