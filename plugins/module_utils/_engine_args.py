# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Options of vLLM, from how an inventory spells them to how its command line takes them."""

from __future__ import annotations

import json

# What a deployment says with a key of its own, and which one. Given twice, one would win silently.
RESERVED = {
    "api_key": "api_key",
    "chat_template": "chat_template",
    "host": "listen",
    "model": "model",
    "model_tag": "model",
    "port": "port",
    "served_model_name": "served_model_names",
}


def reserved_in(engine_args):
    """Return (name as given, the deployment's key to use instead) for each reserved option."""
    found = []
    for name in engine_args:
        key = RESERVED.get(str(name).lstrip("-").replace("-", "_"))
        if key:
            found.append((name, key))
    return found


def to_argv(engine_args):
    """Return the command line of a dict of options.

    Names are spelled with underscores (dashes do no harm). A value of true gives ``--name``, false ``--no-name``
    (vLLM 0.8.5 and newer), none leaves the option out, a list gives several values, a dict
    one JSON document.
    """
    argv = []
    for name, value in engine_args.items():
        flag = str(name).lstrip("-").replace("_", "-")
        if value is None:
            continue
        if value is True:
            argv.append("--" + flag)
        elif value is False:
            argv.append("--no-" + flag)
        elif isinstance(value, dict):
            argv += ["--" + flag, json.dumps(value, sort_keys=True, ensure_ascii=False)]
        elif isinstance(value, (list, tuple)):
            argv.append("--" + flag)
            argv += [json.dumps(v, sort_keys=True) if isinstance(v, dict) else str(v) for v in value]
        else:
            argv += ["--" + flag, str(value)]
    return argv
