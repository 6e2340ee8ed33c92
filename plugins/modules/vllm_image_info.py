#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_image_info
short_description: What is in an image of vLLM, and what its registry has under the same name
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Tells the version of vLLM, the CUDA that an image needs, its entrypoint, user, digests and, where the collection
    built it, the commit and the target that it was built from.
  - The version is asked in the image itself, in one short run without network, until it has told. What it tells is kept
    in O(records_dir).
requirements:
  - docker (Python SDK)
attributes:
  check_mode:
    support: full
    description: The image is asked as well, and what it tells is not kept.
  diff_mode:
    support: none
    description: It changes nothing of the host but O(records_dir).
options:
  name:
    description: Name of the image, with its tag or digest, or its ID.
    type: str
    required: true
    version_added: 0.2.0
  registry:
    description:
      - Also ask the registry which digest the name has there. The request goes through Docker, with the credentials of
        the account that the module runs as.
    type: bool
    default: false
    version_added: 0.2.0
  releases_dir:
    description:
      - Folder with the records of releases. With it, RV(unused) tells what no release and no container refers to.
    type: path
    version_added: 0.2.0
  wanted:
    description: Names of further images that are never among RV(unused).
    type: list
    elements: str
    default: []
    version_added: 0.2.0
  records_dir:
    description: Folder on the host where it is kept what images have told.
    type: path
    default: /var/cache/llmops-vllm/images
    version_added: 0.2.0
  timeout:
    description: Seconds that Docker, or the image, may take to answer.
    type: int
    default: 120
    version_added: 0.2.0
seealso:
  - module: llmops.vllm.vllm_image_build
  - module: community.docker.docker_image_info
"""

EXAMPLES = r"""
- name: Look at the image, and at the one that the registry has now
  llmops.vllm.vllm_image_info:
    name: vllm/vllm-openai:v0.32.0
    registry: true
  register: found

- name: Say when the tag has moved
  ansible.builtin.debug:
    msg: The registry has another image under this tag, {{ found.registry_digest }}
  when: found.image.digest != found.registry_digest
"""

RETURN = r"""
image:
  description: The image, or null where the host has none of the name.
  returned: always
  type: dict
  contains:
    id:
      description: ID of the image.
      type: str
      sample: sha256:4f1c...
    tags:
      description: Its names on the host.
      type: list
      elements: str
      sample: ["vllm/vllm-openai:v0.32.0"]
    digest:
      description: The digest under which the registry of O(name) has it; empty for one that came from none.
      type: str
      sample: sha256:9a3e...
    digests:
      description: All digests that Docker knows of it.
      type: list
      elements: str
      sample: ["vllm/vllm-openai@sha256:9a3e..."]
    size:
      description: Its size in bytes.
      type: int
      sample: 12345678901
    created:
      description: When it was made.
      type: str
      sample: "2026-01-30T09:12:44Z"
    entrypoint:
      description: Its entrypoint.
      type: list
      elements: str
      sample: [vllm, serve]
    user:
      description: The user that it runs as; empty for root.
      type: str
      sample: "2000:0"
    version:
      description: Version of the vLLM in it, or what its tag says where there is no Python to ask; may be empty.
      type: str
      sample: 0.32.0
    cuda:
      description: Version of CUDA in it; empty for an image without.
      type: str
      sample: 12.9.1
    cuda_required:
      description: The CUDA that the host's driver has to know, by the image's own account; empty where it says nothing.
      type: str
      sample: "12.9"
    commit:
      description: The commit of vLLM's source that it was built from; empty where nothing tells.
      type: str
      sample: 1f3a5c7e9b2d4f6a8c0e1a3b5d7f9c2e4a6b8d0f
    target:
      description: The stage of the Dockerfile that it is; empty for an image that the collection did not build.
      type: str
      sample: vllm-openai
    inputs:
      description: Digest of what it was built from; empty for an image that the collection did not build.
      type: str
      sample: 55d0...
    recipe:
      description: What it was built from, in full; empty where M(llmops.vllm.vllm_image_build) did not build it.
      type: dict
      sample: {commit: 1f3a5c7e9b2d4f6a8c0e1a3b5d7f9c2e4a6b8d0f, dockerfile: docker/Dockerfile, target: vllm-openai}
registry_digest:
  description: The digest that the name has in its registry; empty where the registry did not tell.
  returned: when O(registry) is true
  type: str
  sample: sha256:9a3e...
registry_error:
  description: Why the registry did not tell; empty when it did.
  returned: when O(registry) is true
  type: str
  sample: "dial tcp 192.0.2.1:443: connect: connection refused"
unused:
  description: IDs of the images of the same repository that no release and no container refers to, the newest first.
  returned: when O(releases_dir) is given
  type: list
  elements: str
  sample: ["sha256:77aa..."]
"""

import json
import os
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_image, _image


class ImageInfo:
    """Looks at an image of this host."""

    def __init__(self, params: dict[str, Any], keep: bool) -> None:
        self.name = params["name"]
        self.registry = params["registry"]
        self.releases_dir = params["releases_dir"]
        self.wanted = set(params["wanted"])
        self.records_dir = params["records_dir"]
        self.timeout = params["timeout"]
        self.keep = keep
        self.client = _engine_image.docker.from_env(timeout=self.timeout)

    def run(self) -> dict[str, Any]:
        """Return the result."""
        result: dict[str, Any] = {"changed": False}
        if self.registry:
            result["registry_digest"], result["registry_error"] = self._in_registry()
        result["image"] = image = self._image(result.get("registry_digest", ""))
        if self.releases_dir:
            result["unused"] = self._unused({image["id"]} if image else set())
        return result

    def _image(self, registry_digest: str) -> dict[str, Any] | None:
        try:
            attrs = self.client.images.get(self.name).attrs
        except _engine_image.docker.errors.ImageNotFound:
            return None
        told = _image.describe(attrs, self._version(attrs["Id"]))
        return dict(told, digest=_image.digest_of(attrs, self.name, registry_digest))

    def _version(self, image_id: str) -> str | None:
        path = os.path.join(self.records_dir, image_id.rpartition(":")[2][:12] + ".json")
        try:
            with open(path, encoding="utf-8") as stream:
                record = json.load(stream)
            if record["image"] == image_id:
                return str(record["version"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        version = self._ask_version(image_id)
        if self.keep and version is not None:
            os.makedirs(self.records_dir, mode=0o755, exist_ok=True)
            new = "%s.%d" % (path, os.getpid())
            with open(new, "w", encoding="utf-8") as stream:
                json.dump({"image": image_id, "version": version}, stream)
            os.chmod(new, 0o644)
            os.replace(new, path)
        return version

    def _ask_version(self, image_id: str) -> str | None:
        """Return the version of the vLLM in the image, '' for none, or None where it did not answer this time."""
        image = _engine_image.EngineImage(image_id, [], self.records_dir, self.timeout)
        try:
            code, output = image.run(["python3", "-c", _image.VERSION_SCRIPT], [])
        except _engine_image.ImageError:
            # It has no python3, or Docker was too busy to start it.
            return None
        found = [line[len(_image.MARK) :] for line in output.splitlines() if line.startswith(_image.MARK)]
        return (found or [""])[0] if code == 0 else None

    def _in_registry(self) -> tuple[str, str]:
        try:
            return self.client.images.get_registry_data(self.name).id, ""
        except _engine_image.docker.errors.DockerException as error:
            return "", str(getattr(error, "explanation", None) or error)
        except (_engine_image.ReadTimeout, _engine_image.ConnectionLost):
            return "", "it did not answer within %d s" % self.timeout

    def _unused(self, in_use: set[str]) -> list[str]:
        ids = {image["Id"] for image in self.client.api.images(all=False)}
        images = [attrs for attrs in map(self._inspect, sorted(ids)) if attrs]
        in_use |= {attrs["Id"] for attrs in images if self.wanted.intersection(attrs.get("RepoTags") or ())}
        in_use |= _image.ids_in_releases(self.releases_dir)
        in_use.update(container["ImageID"] for container in self.client.api.containers(all=True))
        return _image.unused(images, self.name, in_use)

    def _inspect(self, image_id: str) -> dict[str, Any] | None:
        try:
            attrs: dict[str, Any] = self.client.api.inspect_image(image_id)
            return attrs
        except _engine_image.docker.errors.NotFound:
            # Taken away by another run meanwhile.
            return None


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", required=True),
            registry=dict(type="bool", default=False),
            releases_dir=dict(type="path"),
            wanted=dict(type="list", elements="str", default=[]),
            records_dir=dict(type="path", default="/var/cache/llmops-vllm/images"),
            timeout=dict(type="int", default=120),
        ),
        supports_check_mode=True,
    )
    if _engine_image.DOCKER_ERROR:
        module.fail_json(msg=missing_required_lib("docker"), exception=_engine_image.DOCKER_ERROR)
    try:
        module.exit_json(**ImageInfo(module.params, keep=not module.check_mode).run())
    except Exception as error:
        # What the docker SDK raises differs between its versions and those of requests, and much of it is an OSError.
        module.fail_json(
            msg="nothing can be told of %s: %s" % (module.params["name"], error), exception=traceback.format_exc()
        )


if __name__ == "__main__":
    main()
