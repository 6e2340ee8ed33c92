"""The double of vLLM, which also writes each request down, with its headers: what an engine gets to see.

It takes the options of the double; the file is REQUESTS. Health checks are left out.
"""

import json
import os
import sys

import vllm_double


class Recorder(vllm_double.Handler):
    def do_GET(self):
        if self.path != "/health":
            line = json.dumps({"method": self.command, "path": self.path, "headers": dict(self.headers)})
            with open(os.environ["REQUESTS"], "a") as stream:
                stream.write(line + "\n")
        super().do_GET()

    do_POST = do_GET


vllm_double.Handler = Recorder
sys.exit(vllm_double.main())
