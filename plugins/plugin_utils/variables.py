# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The variables of an inventory that something of this collection reads.

Those of the roles are in their argument specs. Those of the playbooks are here; a test compares them with the
playbooks, so a new one is added here first.
"""

from __future__ import annotations

import glob
import os
from typing import Any

import yaml

ROLES = os.path.join(os.path.dirname(__file__), "..", "..", "roles")

# What begins with it, or with the name of a role, is ours.
PREFIX = "vllm_"

# Name -> (type as in an argument spec, what it means).
VARIABLES = {
    "vllm_absent_all": ("bool", "with absent.yml: everything goes, with the Docker that was installed for it"),
    "vllm_absent_image": ("bool", "with absent.yml: the images go as well"),
    "vllm_absent_models": ("bool", "with absent.yml: the weights go as well"),
    "vllm_become": ("bool", "become root on the hosts"),
    # Its own check has better words for what is wrong in it.
    "vllm_canary_max_error_rate": ("float", "part of the canary's requests that may fail while it is watched"),
    "vllm_canary_soak": ("int", "seconds for which the first batch of a rollout is watched under load"),
    "vllm_deployments": ("raw", "the catalogue of deployments"),
    "vllm_full": ("bool", "run every role, even where nothing has changed since it ended well"),
    "vllm_hub_endpoint": ("str", "the Hub, or a mirror of it"),
    "vllm_hub_max_rate": ("str", "most bytes per second of a host's download"),
    "vllm_hub_token": ("str", "token for private and gated repositories"),
    "vllm_hub_token_file": ("path", "a file on the hosts that holds the token"),
    "vllm_internal_address": ("str", "address of the host on the internal network"),
    "vllm_keep_snapshots": ("int", "how many older snapshots of a model stay"),
    "vllm_lock_file": ("path", "the lock file on the controller"),
    "vllm_manage_toolkit": ("bool", "install the NVIDIA Container Toolkit where deployments use GPUs"),
    "vllm_max_lost": ("int", "how many hosts may be lost before a rollout stops"),
    "vllm_preflight_ignore": ("list", "codes of findings to leave out"),
    "vllm_preflight_image_size": ("float", "gigabytes that an image for CUDA takes once it is unpacked"),
    "vllm_preflight_report": ("path", "a file on the controller for all that the preflight has seen and found"),
    "vllm_prune": ("bool", "remove containers whose deployment is no longer in the catalogue"),
    "vllm_rollout_batches": ("list", "sizes of a rollout's batches, as numbers of hosts or parts of them"),
    "vllm_rollout_pause": ("str", "seconds between the batches of a rollout, or confirm to be asked"),
    "vllm_take_over": ("str", "with rollout.yml and rollback.yml: the owner of a lease that may be ended"),
    "vllm_update": ("bool", "resolve branches and tags anew"),
}

# What roles and playbooks set for those that come after them: an inventory need not, and is offered none of them.
PUBLISHED = frozenset(
    (
        "model_snapshot_results",
        "vllm_catalogue",
        "vllm_host_python",
        "vllm_image_facts",
        "vllm_image_resolved",
        "vllm_rollout",
        "vllm_server_changed",
        "vllm_server_has_fallback",
        "vllm_server_look",
        "vllm_server_pending",
    )
)


# What the lock file, which stands in the inventory's own folder, gives to all hosts.
LOCK_VARIABLE = "vllm_lock"


def role_names(roles: str = ROLES) -> list[str]:
    """Return the names of the roles of the collection."""
    return sorted(name for name in os.listdir(roles) if os.path.isdir(os.path.join(roles, name)))


def options_of_roles(roles: str = ROLES) -> dict[str, dict[str, Any]]:
    """Return the options of all entry points of all roles, as their argument specs have them."""
    options: dict[str, dict[str, Any]] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(roles), "*", "meta", "argument_specs.y*ml"))):
        document = _specs(path) or {}
        for entry_point in (document.get("argument_specs") or {}).values():
            options.update((entry_point or {}).get("options") or {})
    return options


def options_of_role(role: str, roles: str = ROLES) -> dict[str, dict[str, Any]]:
    """Return the options of the main entry point of a role."""
    document = _specs(os.path.join(roles, role, "meta", "argument_specs.yml"))
    return document["argument_specs"]["main"].get("options") or {}


def _specs(path: str) -> Any:
    with open(path, "rb") as stream:
        # The one in C, where there is one: it reads the specs in a tenth of the time.
        return yaml.load(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe


def known_variables(roles: str = ROLES) -> dict[str, dict[str, Any]]:
    """Return {name: spec} of all variables that an inventory may set; a spec has at least its type."""
    known = {name: {"type": kind} for name, (kind, dummy) in VARIABLES.items()}
    known.update(options_of_roles(roles))
    return known


def prefixes(roles: str = ROLES) -> tuple[str, ...]:
    """Return what the names of our variables begin with."""
    return (PREFIX,) + tuple(name + "_" for name in role_names(roles) if not name.startswith(PREFIX))
