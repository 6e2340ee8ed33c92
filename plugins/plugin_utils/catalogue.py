# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The catalogue of deployments: what an inventory may say, completed and checked.

Pure logic: no files, no hosts. All problems are found at once, each as one sentence that names
the value and the way out.
"""

from __future__ import annotations

import difflib
import ipaddress
import re

from ansible_collections.llmops.vllm.plugins.module_utils._engine_args import reserved_in
from ansible_collections.llmops.vllm.plugins.module_utils._probe import CHECKS, TASK_CHECKS
from ansible_collections.llmops.vllm.plugins.module_utils._release import device_requests
from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import COMMIT

# Key -> (types, default). The defaults are those of the role vllm_server (a test compares them);
# None means that the key is needed or that its default depends on others.
KEYS = {
    "name": (str, None),
    "hosts": (str, "vllm"),
    "model": (dict, None),
    "image": (str, None),
    "task": (str, "generate"),
    "port": (int, 30080),
    "listen": (str, "127.0.0.1"),
    "api_key": (str, ""),
    "allow_unauthenticated": (bool, False),
    "gpus": ((str, int, list), "all"),
    "container_name": (str, None),
    "hostname": (str, None),
    "served_model_names": (list, None),
    "chat_template": (str, ""),
    "engine_args": (dict, {}),
    "environment": (dict, {}),
    "user": (str, ""),
    "memory": (str, ""),
    "cpus": ((str, int, float), ""),
    "pids_limit": ((str, int), ""),
    "shm_size": (str, "16g"),
    "tmp_size": (str, "2g"),
    "log_max_size": (str, "50m"),
    "log_max_files": (int, 5),
    "start_timeout": (int, 2400),
    "stop_timeout": (int, 60),
    "probe_prompt": (
        str,
        "日本の都道府県名をランダムに１つ回答してください。その都道府県名の魅力を3つ答えてください。",
    ),
    "probe_max_tokens": (int, 32),
    "probe_request_timeout": (int, 30),
    "probe_grace": (int, 120),
    "probe_checks": (list, []),
    "probe_expect_text": (str, ""),
}
MODEL_KEYS = {
    "repo_id": (str, None),
    "revision": (str, "main"),
    "allow_patterns": (list, []),
    "ignore_patterns": (list, []),
    "weights": (str, "safetensors_only"),
}
WEIGHTS = ("safetensors_only", "any")
TASKS = tuple(TASK_CHECKS)
NAME = re.compile(r"[a-z0-9][a-z0-9._-]+\Z")
CONTAINER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+\Z")
API_KEY = re.compile(r"[!-~]+\Z")
REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+\Z")


class CatalogueError(Exception):
    """Every problem of a catalogue. problems: list of sentences."""

    def __init__(self, problems):
        super().__init__(
            "%d problem%s in vllm_deployments:\n%s"
            % (len(problems), "s"[: len(problems) > 1], "\n".join("- " + problem for problem in problems))
        )
        self.problems = problems


def read_catalogue(deployments, hosts_of, locked, default_image):
    """Return the deployments, completed, or raise CatalogueError.

    deployments: the list that the user wrote. hosts_of: function from an inventory pattern to a
    list of host names. locked: the lock file's commits, {repo_id: {revision: commit}}.
    default_image: the image of deployments that name none.

    A completed deployment has all of KEYS but api_key (which must not travel through facts),
    and: hosts (list of names), has_api_key, model.commit ('' while the revision is not locked), and
    snapshots (what the role model_snapshot has to bring; empty while the revision is not locked).
    """
    if not isinstance(deployments, list):
        raise CatalogueError(
            [
                "vllm_deployments is missing or no list: write it into group_vars/all.yml, each deployment an item "
                "that begins with '- name:'"
            ]
        )
    problems = []
    completed = []
    for position, given in enumerate(deployments, 1):
        label = given.get("name") if isinstance(given, dict) and isinstance(given.get("name"), str) else None
        where = "deployment '%s'" % label if label else "deployment %d" % position
        if not isinstance(given, dict):
            problems.append("%s is no dictionary: write name, model and so on as its keys" % where)
            continue
        found = _key_problems(given, KEYS, where)
        model = given.get("model")
        if isinstance(model, dict):
            found += _key_problems(model, MODEL_KEYS, where + ": model")
        if not found:
            entry = _complete(given, hosts_of, locked, default_image)
            found = _value_problems(entry, given, where)
            completed.append(entry)
        problems += found
    problems += _clashes(completed)
    if problems:
        raise CatalogueError(problems)
    return completed


def unlocked(deployments):
    """Return the models whose commit is not known yet, each once, in order: MODEL_KEYS without the commit."""
    seen = []
    for deployment in deployments:
        model = {key: deployment["model"][key] for key in MODEL_KEYS}
        if not deployment["model"]["commit"] and model not in seen:
            seen.append(model)
    return seen


def _key_problems(given, keys, where):
    problems = []
    for key, value in given.items():
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, n=1)
            hint = "did you mean '%s'?" % near[0] if near else "it takes %s" % ", ".join(sorted(keys))
            problems.append("%s has the unknown key '%s': %s" % (where, key, hint))
            continue
        types = keys[key][0] if isinstance(keys[key][0], tuple) else (keys[key][0],)
        # bool is an int to Python, but "port: true" is a mistake.
        if value is not None and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
            # The value of a key that was given as a number is still a secret.
            shown = "no text" if key == "api_key" else repr(value)
            takes = " or ".join(dict.fromkeys(_type_name(t) for t in types))
            problems.append("%s: %s is %s, it takes %s" % (where, key, shown, takes))
        elif list in types and key != "gpus":
            problems += [
                "%s: %s has %r, which is no text: quote it" % (where, key, item)
                for item in value or []
                if not isinstance(item, str)
            ]
    for key in ("name", "model", "repo_id"):
        if key in keys and not given.get(key):
            problems.append("%s has no %s: add it" % (where, key))
    return problems


def _type_name(kind):
    names = {
        str: "text",
        int: "a number",
        float: "a number",
        bool: "true or false",
        list: "a list",
        dict: "a dictionary",
    }
    return names[kind]


def _complete(given, hosts_of, locked, default_image):
    entry = {key: default for key, (dummy, default) in KEYS.items() if key != "api_key"}
    entry.update({key: value for key, value in given.items() if value is not None and key != "api_key"})
    name = entry["name"]
    entry["has_api_key"] = bool(given.get("api_key"))
    entry["image"] = entry["image"] or default_image
    entry["container_name"] = entry["container_name"] or name
    entry["hostname"] = entry["hostname"] or entry["container_name"]
    entry["served_model_names"] = entry["served_model_names"] or [name]
    entry["pattern"] = entry["hosts"]
    entry["hosts"] = hosts_of(entry["hosts"])
    entry["snapshots"] = []
    model = {key: default for key, (dummy, default) in MODEL_KEYS.items()}
    model.update({key: value for key, value in given["model"].items() if value is not None})
    revision = model["revision"] = model["revision"] or MODEL_KEYS["revision"][1]
    commit = revision if COMMIT.match(revision) else locked.get(model["repo_id"], {}).get(revision, "")
    if commit:
        entry["snapshots"] = [dict(model, revision=commit)]
    model["commit"] = commit
    entry["model"] = model
    return entry


def _value_problems(entry, given, where):
    problems = []
    if not NAME.match(entry["name"]):
        problems.append("%s: a name has two or more of a-z, 0-9, '.', '_' and '-', and begins with a-z or 0-9" % where)
    if entry["container_name"] != entry["name"] and not CONTAINER_NAME.match(entry["container_name"]):
        problems.append(
            "%s: container_name '%s' is none for Docker: it has two or more of letters, digits, '.', '_' and '-'"
            % (where, entry["container_name"])
        )
    if not REPO_ID.match(entry["model"]["repo_id"]):
        problems.append("%s: repo_id '%s' is not of the form organisation/name" % (where, entry["model"]["repo_id"]))
    if entry["model"]["weights"] not in WEIGHTS:
        problems.append("%s: weights '%s' is not one of %s" % (where, entry["model"]["weights"], ", ".join(WEIGHTS)))
    if not entry["hosts"]:
        problems.append(
            "%s: hosts '%s' matches no host of the inventory: name a group or a host of it" % (where, entry["pattern"])
        )
    if not 1 <= entry["port"] <= 65535:
        problems.append("%s: port %d is not between 1 and 65535" % (where, entry["port"]))
    if entry["task"] not in TASKS:
        problems.append("%s: task '%s' is not one of %s" % (where, entry["task"], ", ".join(TASKS)))
    problems += [
        "%s: probe_checks has '%s', which is not one of %s" % (where, check, ", ".join(CHECKS))
        for check in entry["probe_checks"]
        if check not in CHECKS
    ]
    listen = _ipv4(entry["listen"])
    if not listen:
        problems.append(
            "%s: listen is '%s', it takes an IPv4 address of the host: Docker publishes no port on a name"
            % (where, entry["listen"])
        )
    elif not listen.is_loopback and not entry["has_api_key"] and not entry["allow_unauthenticated"]:
        problems.append(
            "%s would listen on %s without an API key: set api_key, listen on 127.0.0.1, or set "
            "allow_unauthenticated if everybody may use it" % (where, entry["listen"])
        )
    if entry["has_api_key"] and not API_KEY.match(given["api_key"]):
        problems.append(
            "%s: api_key has a space, a line break or a character that is not ASCII, "
            "which no client could send: correct it" % where
        )
    try:
        device_requests(entry["gpus"])
    except ValueError as error:
        problems.append("%s: %s" % (where, error))
    for name, key in reserved_in(entry["engine_args"]):
        problems.append("%s: engine_args has '%s': use the deployment's own key '%s'" % (where, name, key))
    return problems


def _ipv4(address):
    try:
        return ipaddress.IPv4Address(address)
    except ValueError:
        return None


def _clashes(deployments):
    """Return a problem for each pair that wants the same name, or the same port or container of a host."""
    problems = []
    for index, one in enumerate(deployments):
        for other in deployments[:index]:
            if one["name"] == other["name"]:
                problems.append("two deployments are named '%s': rename one of them" % one["name"])
                continue
            common = sorted(set(one["hosts"]) & set(other["hosts"]))
            for key in ("port", "container_name"):
                if common and one[key] == other[key]:
                    problems.append(
                        "'%s' and '%s' both want the %s %s of %s: change one of them"
                        % (other["name"], one["name"], key, one[key], common[0])
                    )
    return problems
