#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_engine_args
short_description: Options of vLLM, checked against the vLLM of an image
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Renders options that are spelled with underscores as the command line that the vLLM of an image takes, or fails with
    every problem at once, before anything is stopped.
  - The image is asked for its own parser, in one short run without network and without a model, once per image. What it
    tells is kept in O(schema_dir). Where no parser can be made in the image, its C(--help) is read, and where that does
    not work either, the table of the releases 0.4.2 to 0.33.0 counts.
  - Options that are gone are replaced where there is only one way to do so.
requirements:
  - docker (Python SDK)
attributes:
  check_mode:
    support: full
    description: The image is asked as well, and what it tells is not kept.
  diff_mode:
    support: none
    description: Nothing of the host is changed but O(schema_dir).
  idempotent:
    support: full
    description: What an image has told is a cache, and no change.
options:
  image:
    description: Name or ID of the image, which must be on the host.
    type: str
    required: true
    version_added: 0.2.0
  engine_args:
    description:
      - The options. V(true) and V(false) switch one on and off, a list gives several values, a dictionary one JSON
        document, V(null) leaves the option out. A name such as C(compilation_config.mode) sets one key of a document.
    type: dict
    default: {}
    version_added: 0.2.0
  model_path:
    description: Folder of the model in the container. The command line begins with it as the image wants it.
    type: str
    version_added: 0.2.0
  served_model_names:
    description: Names that clients ask for.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
  snapshots:
    description:
      - Further models by their names, each with its folder in the container. C(snapshot:NAME) in a value of
        O(engine_args) stands for that folder.
    type: dict
    default: {}
    version_added: 0.2.0
  where_known:
    description: Options that are added where the image knows them and O(engine_args) does not have them.
    type: dict
    default: {}
    version_added: 0.2.0
  translate:
    description: Replace options that are gone, where there is only one way to do so, and say it.
    type: bool
    default: true
    version_added: 0.2.0
  upgraded_from:
    description: The version that ran before. Defaults that have moved since then are warned of.
    type: str
    default: ""
    version_added: 0.2.0
  gpus:
    description: V(all), V(none), a count, or a list of indices or UUIDs, with which the image is asked.
    type: raw
    default: none
    version_added: 0.2.0
  schema_dir:
    description: Folder on the host where the options of images are kept.
    type: path
    default: /var/cache/llmops-vllm/schemas
    version_added: 0.2.0
  timeout:
    description: Seconds that the image may take to tell its options. The first import of vLLM takes up to a minute.
    type: int
    default: 300
    version_added: 0.2.0
seealso:
  - plugin: llmops.vllm.engine_argv
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Check the options before the server is replaced
  llmops.vllm.vllm_engine_args:
    image: vllm/vllm-openai:v0.32.0
    gpus: all
    model_path: /vllm/model
    served_model_names: [karakuri-70b]
    engine_args:
      quantization: awq
      max_model_len: 4095
      worker_use_ray: true
  register: options
"""

RETURN = r"""
argv:
  description: The command line behind the image's entrypoint.
  returned: success
  type: list
  elements: str
  sample: [/vllm/model, --served-model-name, karakuri-70b, --max-model-len, "4095"]
version:
  description: Version of the vLLM in the image, or an empty string where nothing tells.
  returned: success
  type: str
  sample: 0.32.0
entrypoint:
  description: Entrypoint of the image.
  returned: success
  type: list
  elements: str
  sample: [vllm, serve]
source:
  description: Where the options are known from, V(parser), V(help) or V(table).
  returned: success
  type: str
  sample: parser
translated:
  description: What was replaced, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["worker_use_ray: true became distributed_executor_backend: ray"]
warnings:
  description: What is deprecated, or not what it seems.
  returned: when there are any
  type: list
  elements: str
  sample:
    - "quantization: awq makes vLLM 0.20.0 take its slow kernel: leave it out, and vLLM finds the fast one itself"
problems:
  description: Each problem as a sentence.
  returned: failure by wrong options
  type: list
  elements: str
  sample: ["vLLM 0.32.0 has no option max_modle_len: did you mean max_model_len?"]
"""

import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_args, _engine_image
from ansible_collections.llmops.vllm.plugins.module_utils._release import device_requests


class EngineArgsCheck:
    """Checks options against an image and renders them."""

    def __init__(self, params: dict[str, Any], keep: bool) -> None:
        self.params = params
        self.image = _engine_image.EngineImage(
            params["image"], device_requests(params["gpus"]), params["schema_dir"], params["timeout"], keep
        )

    def run(self) -> tuple[dict[str, Any], list[str]]:
        """Return (the result, warnings); raise EngineArgsError or ImageError."""
        schema = self.image.schema()
        params = self.params
        engine_args = _engine_args.with_snapshots(params["engine_args"], params["snapshots"])
        rendered = _engine_args.render(
            engine_args, schema, params["translate"], params["where_known"], params["upgraded_from"]
        )
        argv = []
        if params["model_path"]:
            argv = [params["model_path"]] if self.image.takes_model_first() else ["--model", params["model_path"]]
        if params["served_model_names"]:
            argv += ["--served-model-name"] + params["served_model_names"]
        warnings = rendered.warnings
        if schema.table and schema.table != schema.version:
            warnings = warnings + [
                "the options of %s are taken for those of vLLM %s, the nearest that is known"
                % (params["image"], schema.table)
            ]
        return {
            "changed": False,
            "argv": argv + rendered.argv,
            "version": schema.version,
            "entrypoint": self.image.entrypoint,
            "source": schema.source,
            "translated": rendered.translated,
        }, warnings


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            image=dict(type="str", required=True),
            engine_args=dict(type="dict", default={}),
            model_path=dict(type="str"),
            served_model_names=dict(type="list", elements="str", default=[]),
            snapshots=dict(type="dict", default={}),
            where_known=dict(type="dict", default={}),
            translate=dict(type="bool", default=True),
            upgraded_from=dict(type="str", default=""),
            gpus=dict(type="raw", default="none"),
            schema_dir=dict(type="path", default="/var/cache/llmops-vllm/schemas"),
            timeout=dict(type="int", default=300),
        ),
        supports_check_mode=True,
    )
    if _engine_image.DOCKER_ERROR:
        module.fail_json(msg=missing_required_lib("docker"), exception=_engine_image.DOCKER_ERROR)
    try:
        result, warnings = EngineArgsCheck(module.params, keep=not module.check_mode).run()
    except _engine_args.EngineArgsError as error:
        module.fail_json(msg="engine_args: %s" % error, problems=error.problems)
    except (_engine_image.ImageError, ValueError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg="the options of the image cannot be kept: %s" % error)
    except Exception as error:
        # What the docker SDK raises differs between its versions and those of requests.
        module.fail_json(
            msg="%s could not be asked: %s" % (module.params["image"], error), exception=traceback.format_exc()
        )
    for warning in warnings:
        module.warn("%s: %s" % (module.params["image"], warning))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
