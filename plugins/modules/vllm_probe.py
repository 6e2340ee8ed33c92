#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_probe
short_description: Waits until a vLLM server really answers
version_added: 0.1.0
author: The llmops.vllm authors (@llmops)
description:
  - Waits until the server is alive, looks for the model in its list, and has it answer a question.
  - C(/health) alone says little, so the server is ready only when it has generated tokens.
  - With O(container), a server that ends while it starts is told at once, with the line of its log that says why.
  - While it waits, its action plugin shows what the server is doing.
attributes:
  check_mode:
    support: full
    description: The module changes nothing.
  diff_mode:
    support: none
    description: The module changes nothing.
  idempotent:
    support: full
    description: The module changes nothing.
requirements:
  - requests
  - docker, when O(container) is given
options:
  url:
    description: Address of the server, such as C(http://127.0.0.1:30080).
    type: str
    required: true
  api_key:
    description: Key that the server wants.
    type: str
  api_key_file:
    description: File on the host that holds the key. Not together with O(api_key).
    type: path
  model:
    description:
      - Name under which the model has to be served.
      - Without it, the first model of the list is asked.
    type: str
  prompt:
    description: The question for the model.
    type: str
    default: What is the capital of Japan?
  max_tokens:
    description: The longest answer, in tokens.
    type: int
    default: 32
  expect_text:
    description: Text that the answer has to contain, upper or lower case.
    type: str
  container:
    description: Name of the server's container, to see it end and to read its log.
    type: str
  timeout:
    description: Seconds until the server has to be alive.
    type: int
    default: 1800
  request_timeout:
    description: Seconds that the answer may take once the server is alive.
    type: int
    default: 120
  interval:
    description: Seconds between two looks while the server starts.
    type: float
    default: 1
  progress_file:
    description: File for the line that the action plugin shows. Set by the action plugin.
    type: path
"""

EXAMPLES = r"""
- name: The runbook's question, as a task
  llmops.vllm.vllm_probe:
    url: http://127.0.0.1:30080
    model: karakuri-70b
    container: vllm
    prompt: 日本の都道府県名をランダムに１つ回答してください。その都道府県名の魅力を3つ答えてください。
    max_tokens: 200
"""

RETURN = r"""
url:
  description: Address of the server.
  returned: success
  type: str
  sample: http://127.0.0.1:30080
version:
  description: Version that the server gives.
  returned: success
  type: str
  sample: 0.32.0
model:
  description: Name of the model that answered.
  returned: success
  type: str
  sample: karakuri-70b
max_model_len:
  description: The longest context in tokens, as the server lists it.
  returned: success
  type: int
  sample: 4095
waited:
  description: Seconds until the server was alive.
  returned: success
  type: float
  sample: 31.2
checks:
  description: What each look at the server saw.
  returned: success
  type: dict
  contains:
    models:
      description: The list of models.
      type: dict
      contains:
        latency:
          description: Seconds until the list was there.
          type: float
    chat:
      description: The answer to the question.
      type: dict
      contains:
        text:
          description: The answer.
          type: str
        tokens:
          description: Its length in tokens.
          type: int
        ttft:
          description: Seconds to the first token.
          type: float
        elapsed:
          description: Seconds to the last token.
          type: float
        tokens_per_second:
          description: Speed of the tokens after the first one.
          type: float
  sample:
    models: {latency: 0.0031}
    chat: {text: The capital of Japan is Tokyo., tokens: 8, ttft: 0.21, elapsed: 0.6, tokens_per_second: 17.9}
"""

import time
import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.llmops.vllm.plugins.module_utils import _openai, _startup_log
from ansible_collections.llmops.vllm.plugins.module_utils._progress import PROGRESS_FILE_SPEC, Progress

try:
    import docker
    import docker.errors

    DOCKER_ERROR = None
except ImportError:
    docker = None
    DOCKER_ERROR = traceback.format_exc()


class Container:
    """State and log of the server's container; without a name it knows nothing."""

    def __init__(self, name):
        self.name = name
        self.client = docker.from_env() if name else None

    def require_running(self):
        """Raise ProbeError with the reason when the container is not running any more."""
        if not self.name:
            return
        try:
            container = self.client.containers.get(self.name)
        except docker.errors.NotFound as error:
            raise _openai.ProbeError("there is no container '%s' on this host" % self.name) from error
        state = container.attrs["State"]
        if state["Running"] and not state["Restarting"]:
            return
        if state["OOMKilled"]:
            raise _openai.ProbeError(
                "the container '%s' was killed for memory while it started: raise its memory limit" % self.name
            )
        log = container.logs(tail=5000).decode("utf-8", "replace")
        raise _openai.ProbeError(
            "the container '%s' ended with exit code %d while it started: %s (more: docker logs %s)"
            % (self.name, state["ExitCode"], _startup_log.decisive_line(log) or "its log is empty", self.name)
        )

    def stage(self):
        """Return what the server says that it is doing, or ''."""
        if not self.name:
            return ""
        try:
            return _startup_log.stage(self.client.containers.get(self.name).logs(tail=20).decode("utf-8", "replace"))
        except docker.errors.APIError:
            return ""


class ServerProbe:
    """Waits for a server and has it answer."""

    def __init__(self, params, api_key):
        self.server = _openai.Server(params["url"], api_key)
        self.container = Container(params["container"])
        self.progress = Progress(params["progress_file"])
        self.model = params["model"]
        self.prompt = params["prompt"]
        self.max_tokens = params["max_tokens"]
        self.expect_text = params["expect_text"]
        self.timeout = params["timeout"]
        self.request_timeout = params["request_timeout"]
        self.interval = params["interval"]
        self.result = {"changed": False, "url": self.server.url, "checks": {}}

    def run(self):
        """Return the module's result; raise ProbeError."""
        self.result["waited"] = round(self._wait_until_alive(), 2)
        self.result["version"] = self.server.get("/version")[0].get("version", "")
        self._find_model()
        answer = self.server.chat(self.result["model"], self.prompt, self.max_tokens, self.request_timeout)
        self.result["checks"]["chat"] = answer
        if self.expect_text and self.expect_text.lower() not in answer["text"].lower():
            raise _openai.ProbeError(
                "%s answered '%s', which does not contain '%s'"
                % (self.result["model"], answer["text"], self.expect_text)
            )
        return self.result

    def _wait_until_alive(self):
        started = time.monotonic()
        if self.server.is_alive():
            self.container.require_running()
            return time.monotonic() - started

        def line():
            waited = time.monotonic() - started
            return "starting, %d s: %s" % (waited, self.container.stage() or self.server.url)

        with self.progress.every(1, line):
            while not self.server.is_alive():
                self.container.require_running()
                waited = time.monotonic() - started
                if waited > self.timeout:
                    raise _openai.ProbeError(
                        "%s was not alive after %d s%s: raise the timeout if it only needs longer"
                        % (self.server.url, waited, self._last_words())
                    )
                time.sleep(self.interval)
        # Somebody else's server may answer on the port of a container that has ended.
        self.container.require_running()
        return time.monotonic() - started

    def _last_words(self):
        stage = self.container.stage()
        return " (its log ends with '%s')" % stage if stage else ""

    def _find_model(self):
        listed, latency = self.server.get("/v1/models")
        self.result["checks"]["models"] = {"latency": round(latency, 4)}
        models = {entry.get("id"): entry for entry in listed.get("data") or []}
        if not models:
            raise _openai.ProbeError("%s serves no model" % self.server.url)
        name = self.model or next(iter(models))
        if name not in models:
            raise _openai.ProbeError("%s serves %s, not %s" % (self.server.url, ", ".join(sorted(models)), name))
        self.result["model"] = name
        self.result["max_model_len"] = models[name].get("max_model_len")


def main():
    module = AnsibleModule(
        argument_spec=dict(
            url=dict(type="str", required=True),
            api_key=dict(type="str", no_log=True),
            api_key_file=dict(type="path"),
            model=dict(type="str"),
            prompt=dict(type="str", default="What is the capital of Japan?"),
            max_tokens=dict(type="int", default=32, no_log=False),
            expect_text=dict(type="str"),
            container=dict(type="str"),
            timeout=dict(type="int", default=1800),
            request_timeout=dict(type="int", default=120),
            interval=dict(type="float", default=1),
            progress_file=PROGRESS_FILE_SPEC,
        ),
        mutually_exclusive=[("api_key", "api_key_file")],
        supports_check_mode=True,
    )
    if _openai.REQUESTS_ERROR:
        module.fail_json(msg=missing_required_lib("requests"), exception=_openai.REQUESTS_ERROR)
    if module.params["container"] and DOCKER_ERROR:
        module.fail_json(msg=missing_required_lib("docker"), exception=DOCKER_ERROR)
    api_key = module.params["api_key"]
    if module.params["api_key_file"]:
        try:
            with open(module.params["api_key_file"], encoding="utf-8") as stream:
                api_key = stream.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            module.fail_json(msg="the key file %s cannot be read: %s" % (module.params["api_key_file"], error))
        if not api_key:
            module.fail_json(msg="the key file %s is empty: write the key into it" % module.params["api_key_file"])
        module.no_log_values.add(api_key)
    try:
        probe = ServerProbe(module.params, api_key)
        with probe.progress:
            result = probe.run()
    except _openai.ProbeError as error:
        module.fail_json(msg=str(error))
    except Exception as error:
        # What the docker SDK raises differs between its versions and those of requests.
        module.fail_json(
            msg="the probe of %s failed: %s" % (module.params["url"], error), exception=traceback.format_exc()
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
