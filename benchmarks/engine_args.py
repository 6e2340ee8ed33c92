"""What the check of options costs: asking an image once, and every check after that.

    .venv/bin/python benchmarks/engine_args.py [--image llmops-vllm-cpu:0.32.0] [--rounds 5]

Needs the image of `make deploy`, and the Python environment that it has made. Prints a table: CPU seconds of the
container that tells its parser beside those of one import of vLLM in the same image, and seconds of a check in process.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
ENGINE_ARGS = {"max_model_len": 2048, "enforce_eager": True, "swap_space": 4, "gpu_memory_utilization": 0.9}
CHECK = """
import sys, time
from ansible_collections.llmops.vllm.plugins.modules.vllm_engine_args import EngineArgsCheck
params = dict(image=sys.argv[1], engine_args=%r, model_path="/m", served_model_names=["m"], where_known={},
              snapshots={}, translate=True, upgraded_from="", gpus="none", schema_dir=sys.argv[2], timeout=300)
for number in range(int(sys.argv[3])):
    started = time.monotonic()
    EngineArgsCheck(params, keep=True).run()
    print(time.monotonic() - started)
""" % (ENGINE_ARGS,)


def container_cpu(image: str, code: str) -> float:
    """CPU seconds of one run of the image's Python."""
    meter = "import resource, sys; used = resource.getrusage(resource.RUSAGE_SELF)\n"
    meter = code + "\n" + meter + "print('\\nCPU', used.ru_utime + used.ru_stime, file=sys.stderr)"
    argv = ["docker", "run", "--rm", "--network=none", "-e", "HOME=/tmp", "--entrypoint", "python3", image, "-c", meter]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stderr
    return float(said.rsplit("CPU ", 1)[1])


def main() -> int:
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--image", default="llmops-vllm-cpu:0.32.0")
    cli.add_argument("--python", default="/opt/llmops-vllm/bin/python", help="one that has the Docker SDK")
    cli.add_argument("--rounds", type=int, default=5)
    args = cli.parse_args()
    source = (PROJECT / "plugins/module_utils/_engine_image.py").read_text()
    script = source.split('PARSER_SCRIPT = r"""', 1)[1].split('"""', 1)[0]
    imports, parsers = [], []
    for _round in range(3):
        imports.append(container_cpu(args.image, "import vllm.entrypoints.cli.serve"))
        parsers.append(container_cpu(args.image, script))
    site = next((PROJECT / ".venv/lib").glob("python*/site-packages"))
    with tempfile.TemporaryDirectory() as folder:
        argv = [args.python, "-c", CHECK, args.image, folder, str(args.rounds + 1)]
        said = subprocess.run(argv, env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=True).stdout
    first, *cached = (float(line) for line in said.split())
    print("| | |\n|---|---|")
    print(f"| one import of vLLM's server in the image (median of 3) | {statistics.median(imports):.1f} s of CPU |")
    print(f"| the image tells its parser (median of 3) | {statistics.median(parsers):.1f} s of CPU |")
    print(f"| first check of an image, the container included | {first:.1f} s |")
    print(f"| check with what is kept (median of {args.rounds}) | {statistics.median(cached):.3f} s |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
