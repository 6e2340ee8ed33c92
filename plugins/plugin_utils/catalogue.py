# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The catalogue of deployments: what an inventory may say, completed and checked.

Pure logic: no files, no hosts. All problems are found at once, each as one sentence that names
the value and the way out.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_schema as schemas
from ansible_collections.llmops.vllm.plugins.module_utils._engine_args import (
    EngineArgsError,
    render,
    reserved_in,
    schema_of_version,
    with_snapshots,
)
from ansible_collections.llmops.vllm.plugins.module_utils._engine_history import HISTORY
from ansible_collections.llmops.vllm.plugins.module_utils._probe import CHECKS, TASK_CHECKS
from ansible_collections.llmops.vllm.plugins.module_utils._release import device_requests
from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import COMMIT
from ansible_collections.llmops.vllm.plugins.plugin_utils import chat_template
from ansible_collections.llmops.vllm.plugins.plugin_utils.inventory_check import hosts_text, shown
from ansible_collections.llmops.vllm.plugins.plugin_utils.network import (
    INTERNAL,
    Deployment,
    Network,
    addresses,
    allowed,
    backends,
    ipv4,
    is_balanced,
    reached_at,
)

Keys = Mapping[str, tuple[Any, Any]]

# Key -> (types, default). The defaults are those of the role vllm_server (a test compares them);
# None means that the key is needed or that its default depends on others.
KEYS: Keys = {
    "name": (str, None),
    "hosts": (str, "vllm"),
    "model": (dict, None),
    "image": (str, None),
    "task": (str, "generate"),
    "port": (int, 30080),
    "listen": (str, "127.0.0.1"),
    "api_key": (str, ""),
    "allow_unauthenticated": (bool, False),
    "allow_from": (list, None),
    "gpus": ((str, int, list), "all"),
    "container_name": (str, None),
    "hostname": (str, None),
    "served_model_names": (list, None),
    "chat_template": (str, ""),
    "snapshots": (dict, {}),
    "engine_args": (dict, {}),
    "translate_engine_args": (bool, True),
    "tls_certificate": (str, ""),
    "tls_key": (str, ""),
    "environment": (dict, {}),
    "mounts": (list, []),
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
    "probe_warm_up": (int, 4),
    "probe_checks": (list, []),
    "probe_expect_text": (str, ""),
    "min_available": ((str, int), "75%"),
    "drain_timeout": (int, 600),
}
MODEL_KEYS: Keys = {
    "repo_id": (str, None),
    "revision": (str, "main"),
    "allow_patterns": (list, []),
    "ignore_patterns": (list, []),
    "weights": (str, "safetensors_only"),
}
MOUNT_KEYS: Keys = {"source": (str, None), "target": (str, None), "read_only": (bool, True)}
# Their tags tell the version of vLLM that is in them.
KNOWN_IMAGES = re.compile(r"(.*/)?(vllm/vllm-openai(-cpu|-rocm)?|llmops-vllm-cpu):")
WEIGHTS = ("safetensors_only", "any")
TASKS = tuple(TASK_CHECKS)
NAME = re.compile(r"[a-z0-9][a-z0-9._-]+\Z")
CONTAINER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+\Z")
API_KEY = re.compile(r"[!-~]+\Z")
REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+\Z")
_AMOUNT = re.compile(r"\d+\Z|(100|\d{1,2})%\Z")
# No host has more; a count beyond it is a mistake that the host itself finds.
MOST_GPUS = 64


class CatalogueError(Exception):
    """Every problem of a catalogue, and of the inventory around it. problems: list of sentences."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(
            "%d problem%s in the inventory:\n%s"
            % (len(problems), "s"[: len(problems) > 1], "\n".join("- " + problem for problem in problems))
        )
        self.problems = problems


def read_catalogue(
    deployments: object,
    network: Network,
    locked: Mapping[str, Mapping[str, str]],
    default_image: str,
    check_template: Callable[[str], object] | None = None,
) -> tuple[list[Deployment], list[dict[str, Any]]]:
    """Return (the deployments, completed, and the backends of the load balancers), or raise CatalogueError.

    deployments: the list that the user wrote. network: network.Network, which knows the hosts of a pattern and their
    addresses. locked: the lock file's commits, {repo_id: {revision: commit}}.
    default_image: the image of deployments that name none. check_template: function that raises
    chat_template.TemplateError for the path of a template that cannot be used; without it no path is looked at.

    A completed deployment has all of KEYS but api_key (which must not travel through facts),
    and: hosts (list of names), has_api_key, and for the model and each of snapshots its commit ('' while the
    revision is not locked) and folder (below the folder for models); wanted_snapshots (what the role model_snapshot
    has to bring; without those whose revision is not locked); and of the network addresses and reached_at ({host: where
    it listens, and where others reach it}), allowed (networks that may reach it, or None for all) and balanced (whether
    the load balancers send requests to it).
    """
    if not isinstance(deployments, list):
        raise CatalogueError(
            [
                "vllm_deployments is missing or no list: write it into group_vars/all.yml, each deployment an item "
                "that begins with '- name:'"
            ]
        )
    problems: list[str] = []
    completed: list[Deployment] = []
    for position, given in enumerate(deployments, 1):
        label = given.get("name") if isinstance(given, dict) and isinstance(given.get("name"), str) else None
        where = "deployment '%s'" % label if label else "deployment %d" % position
        if not isinstance(given, dict):
            problems.append("%s is no dictionary: write name, model and so on as its keys" % where)
            continue
        found = _key_problems(given, KEYS, where)
        found += _inner_problems(given, where)
        if not found:
            entry = _complete(given, network, locked, default_image)
            found = _value_problems(entry, given, where, check_template)
            found += ["%s: %s" % (where, problem) for problem in _network_problems(entry, network)]
            completed.append(entry)
        problems += found
    problems += _clashes(completed) + _gpu_clashes(completed)
    if problems:
        raise CatalogueError(problems)
    keys = {given["name"]: given.get("api_key") or "" for given in deployments}
    spread, problems = backends(completed, keys)
    if problems:
        raise CatalogueError(problems)
    return completed, spread


def unlocked(deployments: Iterable[Deployment]) -> list[dict[str, Any]]:
    """Return the models whose commit is not known yet, each once, in order: MODEL_KEYS without the commit."""
    seen = []
    for deployment in deployments:
        for completed in _models(deployment):
            model = {key: completed[key] for key in MODEL_KEYS}
            if not completed["commit"] and model not in seen:
                seen.append(model)
    return seen


def _models(deployment: Deployment) -> list[dict[str, Any]]:
    """Return the model of a completed deployment, and its further ones."""
    return [deployment["model"]] + list(deployment["snapshots"].values())


def _inner_problems(given: Mapping[str, Any], where: str) -> list[str]:
    """Return the problems of the dictionaries inside a deployment."""
    problems = []
    if isinstance(given.get("model"), dict):
        problems += _key_problems(given["model"], MODEL_KEYS, where + ": model")
    snapshots = given.get("snapshots")
    for name, model in snapshots.items() if isinstance(snapshots, dict) else ():
        inside = "%s: snapshots.%s" % (where, name)
        if not isinstance(model, dict):
            problems.append("%s is no dictionary: write repo_id and revision as its keys" % inside)
        else:
            problems += _key_problems(model, MODEL_KEYS, inside)
    mounts = given.get("mounts")
    for number, mount in enumerate(mounts if isinstance(mounts, list) else (), 1):
        inside = "%s: mount %d" % (where, number)
        if not isinstance(mount, dict):
            problems.append("%s is no dictionary: write source and target as its keys" % inside)
        else:
            problems += _key_problems(mount, MOUNT_KEYS, inside)
    return problems


def _key_problems(given: Mapping[str, Any], keys: Keys, where: str) -> list[str]:
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
            takes = " or ".join(dict.fromkeys(_type_name(t) for t in types))
            problems.append("%s: %s is %s, it takes %s" % (where, key, shown(key, value), takes))
        elif list in types and key not in ("gpus", "mounts"):
            problems += [
                "%s: %s has %s, which is no text: quote it" % (where, key, shown(key, item, "an item"))
                for item in value or []
                if not isinstance(item, str)
            ]
    for key in ("name", "model", "repo_id", "source", "target"):
        if key in keys and not given.get(key):
            problems.append("%s has no %s: add it" % (where, key))
    return problems


def _type_name(kind: type) -> str:
    names = {
        str: "text",
        int: "a number",
        float: "a number",
        bool: "true or false",
        list: "a list",
        dict: "a dictionary",
    }
    return names[kind]


def _complete(
    given: Mapping[str, Any], network: Network, locked: Mapping[str, Mapping[str, str]], default_image: str
) -> Deployment:
    entry = {key: default for key, (dummy, default) in KEYS.items() if key != "api_key"}
    entry.update({key: value for key, value in given.items() if value is not None and key != "api_key"})
    name = entry["name"]
    entry["has_api_key"] = bool(given.get("api_key"))
    entry["image"] = entry["image"] or default_image
    entry["container_name"] = entry["container_name"] or name
    entry["hostname"] = entry["hostname"] or entry["container_name"]
    entry["served_model_names"] = entry["served_model_names"] or [name]
    entry["pattern"] = entry["hosts"]
    entry["hosts"] = network.hosts_of(entry["hosts"])
    entry["model"] = _complete_model(given["model"], locked)
    entry["snapshots"] = {key: _complete_model(model, locked) for key, model in entry["snapshots"].items()}
    entry["mounts"] = [{"read_only": True, **mount} for mount in entry["mounts"]]
    entry["wanted_snapshots"] = [
        dict({key: model[key] for key in MODEL_KEYS}, revision=model["commit"])
        for model in _models(entry)
        if model["commit"]
    ]
    return entry


def _complete_model(given: Mapping[str, Any], locked: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    model = {key: default for key, (dummy, default) in MODEL_KEYS.items()}
    model.update({key: value for key, value in given.items() if value is not None})
    revision = model["revision"] = model["revision"] or MODEL_KEYS["revision"][1]
    model["commit"] = revision if COMMIT.match(revision) else locked.get(model["repo_id"], {}).get(revision, "")
    model["folder"] = "%s/%s" % (model["repo_id"].replace("/", "--"), model["commit"] or "unknown")
    return model


def _value_problems(
    entry: Deployment, given: Mapping[str, Any], where: str, check_template: Callable[[str], object] | None
) -> list[str]:
    problems = []
    if not NAME.match(entry["name"]):
        problems.append("%s: a name has two or more of a-z, 0-9, '.', '_' and '-', and begins with a-z or 0-9" % where)
    if entry["container_name"] != entry["name"] and not CONTAINER_NAME.match(entry["container_name"]):
        problems.append(
            "%s: container_name '%s' is none for Docker: it has two or more of letters, digits, '.', '_' and '-'"
            % (where, entry["container_name"])
        )
    for model in _models(entry):
        if not REPO_ID.match(model["repo_id"]):
            problems.append("%s: repo_id '%s' is not of the form organisation/name" % (where, model["repo_id"]))
        if model["weights"] not in WEIGHTS:
            problems.append("%s: weights '%s' is not one of %s" % (where, model["weights"], ", ".join(WEIGHTS)))
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
    listen = ipv4(entry["listen"])
    if not listen and entry["listen"] != INTERNAL:
        problems.append(
            "%s: listen is '%s', it takes an IPv4 address of the host, or 'internal' for its vllm_internal_address: "
            "Docker publishes no port on a name" % (where, entry["listen"])
        )
    elif not (listen and listen.is_loopback) and not entry["has_api_key"] and not entry["allow_unauthenticated"]:
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
    if bool(entry["tls_certificate"]) != bool(entry["tls_key"]):
        problems.append("%s: tls_certificate and tls_key go together: name both files, or none" % where)
    found = _engine_problems(entry) + _template_problems(entry, check_template)
    return problems + ["%s: %s" % (where, problem) for problem in found]


def _engine_problems(entry: Deployment) -> list[str]:
    """Return the problems of engine_args that can be known without the image."""
    args = entry["engine_args"]
    problems = [
        "engine_args has '%s': use the deployment's own key '%s'" % (name, key) for name, key in reserved_in(args)
    ]
    try:
        args = with_snapshots(args, dict.fromkeys(entry["snapshots"], "/snapshot"))
    except EngineArgsError as error:
        problems += ["engine_args: %s" % problem for problem in error.problems]
    gpus = entry["gpus"]
    count = len(gpus) if isinstance(gpus, list) else gpus if isinstance(gpus, int) else 0
    wanted = [args.get(key, 1) for key in ("tensor_parallel_size", "pipeline_parallel_size")]
    if count and all(isinstance(size, int) for size in wanted) and wanted[0] * wanted[1] > count:
        problems.append(
            "engine_args spread the model over %d GPUs (tensor_parallel_size %d, pipeline_parallel_size %d), and gpus "
            "gives %d: give more, or spread it less" % (wanted[0] * wanted[1], wanted[0], wanted[1], count)
        )
    version = schemas.version_of_tag(entry["image"]) if KNOWN_IMAGES.match(entry["image"]) else ""
    try:
        schema = schema_of_version(version)
    except ValueError:
        # A release of which nothing is known: the image itself is asked later.
        return problems + _quoted_flags(args)
    try:
        render(args, schema, entry["translate_engine_args"])
    except EngineArgsError as error:
        problems += ["engine_args: %s" % problem for problem in error.problems]
    return problems


def _quoted_flags(args: Mapping[str, Any]) -> list[str]:
    """Return a problem for each true or false that is text, where every vLLM that has the option takes it as a flag."""
    problems = []
    for name, value in args.items():
        if not isinstance(value, str) or value.lower() not in ("true", "false", "yes", "no"):
            continue
        plain = schemas.plain(name)
        history = HISTORY.get(plain) or HISTORY.get(plain[len("no_") :] if plain.startswith("no_") else "", [])
        forms = {schemas.of_record(plain, record).form for dummy, record in history if record is not None}
        if forms and forms <= {schemas.FLAG, schemas.PAIR, schemas.SWITCH}:
            problems.append(
                "engine_args: %s is %r, it takes true or false: write it without quotes" % (name, str(value))
            )
    return problems


def _template_problems(entry: Deployment, check_template: Callable[[str], object] | None) -> list[str]:
    """Return the problems of a chat template, be it shipped, a file, or given as its text."""
    template = entry["chat_template"]
    try:
        if template and chat_template.is_text(template):
            chat_template.check(template, "the text of chat_template")
        elif template and not chat_template.is_path(template):
            chat_template.shipped_path(template)
        elif template and check_template:
            check_template(template)
    except chat_template.TemplateError as error:
        return [str(error)]
    return []


def _network_problems(entry: Deployment, network: Network) -> list[str]:
    """Complete what has to do with the network, and return its problems."""
    entry["addresses"], problems = addresses(entry, network)
    entry["allowed"], found = allowed(entry, network)
    entry["balanced"] = is_balanced(entry, network)
    entry["reached_at"] = {}
    if entry["balanced"] and not problems:
        entry["reached_at"], wrong = reached_at(entry, network)
        found += wrong
    problems += found
    if not _AMOUNT.match(str(entry["min_available"])):
        problems.append(
            "min_available is '%s', it takes a number of hosts, or a part of them such as '75%%'"
            % entry["min_available"]
        )
    for key in ("drain_timeout", "probe_warm_up"):
        if entry[key] < 0:
            problems.append("%s is %d, it takes 0 or more" % (key, entry[key]))
    return problems


def _clashes(deployments: Sequence[Deployment]) -> list[str]:
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


def _gpu_clashes(deployments: Sequence[Deployment]) -> list[str]:
    """Return the problems of deployments that get the same GPU of a host and do not share it on purpose."""
    together: dict[tuple[int, ...], list[str]] = {}
    for host in dict.fromkeys(host for deployment in deployments for host in deployment["hosts"]):
        key = tuple(number for number, deployment in enumerate(deployments) if host in deployment["hosts"])
        together.setdefault(key, []).append(host)
    # Hosts with the same deployments have the same problems, and some hosts have them with other deployments as well.
    pairs: dict[tuple[str, str, str], list[str]] = {}
    groups: dict[tuple[tuple[str, ...], float, str], list[str]] = {}
    for numbers, hosts in together.items():
        here = [deployments[number] for number in numbers]
        users = _users_of_gpus(here)
        for one, other in itertools.combinations(here, 2):
            gpus = [gpu for gpu, on_it in users.items() if one in on_it and other in on_it]
            if gpus and one["name"] != other["name"] and not (_shares(one) and _shares(other)):
                pairs.setdefault((one["name"], other["name"], _gpus_text(gpus)), []).extend(hosts)
        crowded: dict[tuple[tuple[str, ...], float], list[str]] = {}
        for gpu, on_it in users.items():
            # Those with kv_cache_memory_bytes take what it says, which only the host can compare with what it has.
            names = tuple(dict.fromkeys(deployment["name"] for deployment in on_it if _fraction(deployment)))
            total = round(sum(_fraction(deployment) or 0 for deployment in on_it), 6)
            if len(names) > 1 and total > 1:
                crowded.setdefault((names, total), []).append(gpu)
        for (names, total), gpus in crowded.items():
            groups.setdefault((names, total, _gpus_text(gpus)), []).extend(hosts)
    problems = [
        "'%s' and '%s' both get %s of %s: give them different gpus, or share on purpose with a gpu_memory_utilization "
        "in the engine_args of each, together at most 1" % (one, other, gpus, hosts_text(hosts))
        for (one, other, gpus), hosts in pairs.items()
    ]
    problems += [
        "%s share %s of %s with a gpu_memory_utilization of %g together: lower it to 1 or less, or give them "
        "different gpus" % (_listed(["'%s'" % name for name in names]), gpus, hosts_text(hosts), total)
        for (names, total, gpus), hosts in groups.items()
    ]
    return problems


def _users_of_gpus(deployments: Sequence[Deployment]) -> dict[str, list[Deployment]]:
    """Return {GPU: the deployments that get it}; a GPU is an index or a UUID as text, or "all"."""
    gpus = {"all": None}
    for deployment in deployments:
        given = deployment["gpus"]
        if isinstance(given, list):
            gpus.update(dict.fromkeys(map(str, given)))
        elif isinstance(given, int):
            gpus.update(dict.fromkeys(map(str, range(min(given, MOST_GPUS)))))
    return {gpu: [deployment for deployment in deployments if _gets(deployment["gpus"], gpu)] for gpu in gpus}


def _gets(given: object, gpu: str) -> bool:
    """Return whether what a deployment's key gpus gives it has a GPU. Docker counts from the first one."""
    if isinstance(given, list):
        return gpu in map(str, given)
    if isinstance(given, int):
        return gpu.isdigit() and int(gpu) < given
    return given == "all"


def _gpus_text(gpus: Collection[str]) -> str:
    if "all" in gpus:
        return "all GPUs"
    ordered = sorted((gpu for gpu in gpus if gpu.isdigit()), key=int) + [gpu for gpu in gpus if not gpu.isdigit()]
    return ("GPU %s" if len(ordered) == 1 else "GPUs %s") % _listed(ordered)


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + list(words[-1:]))


def _fraction(deployment: Deployment) -> float | None:
    """Return the part of a GPU's memory that a deployment asks for, or None where that is not what limits it."""
    args = {schemas.plain(name): value for name, value in deployment["engine_args"].items()}
    if args.get("kv_cache_memory_bytes"):
        return None
    try:
        return float(args["gpu_memory_utilization"])
    except (KeyError, TypeError, ValueError):
        return None


def _shares(deployment: Deployment) -> bool:
    """Return whether a deployment says what it takes of a GPU, so that others can have the rest."""
    return _fraction(deployment) is not None or any(
        schemas.plain(name) == "kv_cache_memory_bytes" and value for name, value in deployment["engine_args"].items()
    )
