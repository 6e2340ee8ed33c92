"""Tests of what BuildKit's plain progress says of a build, as Docker 20.10 prints it and as buildx does."""

from __future__ import annotations

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils._build_log import BuildLog

SHA = "sha256:" + "0123456789abcdef" * 4

BEGIN = """\
#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 37B done
#1 DONE 0.0s

#2 [internal] load metadata for docker.io/library/ubuntu:22.04
#2 DONE 0.4s
"""
# 20.10 prints a digest below each name.
BEGIN_20_10 = BEGIN.replace("\n#1 tr", "\n#1 %s\n#1 tr" % SHA).replace("\n#2 DONE", "\n#2 %s\n#2 DONE" % SHA)

EXIT_3 = (
    BEGIN
    + """
#4 [base 1/2] FROM docker.io/library/ubuntu:22.04@SHA
#4 CACHED

#5 [build 2/3] RUN echo hello &&     exit 3
#5 0.234 hello
#5 ERROR: process "/bin/sh -c echo hello &&     exit 3" did not complete successfully: exit code: 3
------
 > [build 2/3] RUN echo hello &&     exit 3:
0.234 hello
------
Dockerfile:2
--------------------
   1 |     FROM ubuntu:22.04 AS build
   2 | >>> RUN echo hello && \\
   3 | >>>     exit 3
   4 |
--------------------
ERROR: failed to solve: process "/bin/sh -c echo hello &&     exit 3" did not complete successfully: exit code: 3
"""
)
EXIT_3_20_10 = (
    BEGIN_20_10
    + """
#4 [base 1/2] FROM docker.io/library/ubuntu:22.04@SHA
#4 SHA
#4 CACHED

#5 [build 2/3] RUN echo hello &&     exit 3
#5 SHA
#5 0.234 hello
#5 ERROR: executor failed running [/bin/sh -c echo hello &&     exit 3]: exit code: 3
------
 > [build 2/3] RUN echo hello &&     exit 3:
#5 0.234 hello
------
executor failed running [/bin/sh -c echo hello &&     exit 3]: exit code: 3
"""
)


def log_of(text: str) -> BuildLog:
    log = BuildLog()
    for line in text.replace("SHA", SHA).split("\n"):
        log.feed(line)
    return log


def run_log(*lines: str, error: str = "exit code: 1", step: str = "[build 3/9] RUN python3 setup.py") -> BuildLog:
    """Return the log of a step that printed the lines and failed."""
    return log_of(BEGIN + "#7 %s\n" % step + "".join("#7 1.5 %s\n" % line for line in lines) + "#7 ERROR: %s\n" % error)


@pytest.mark.parametrize("text", [EXIT_3, EXIT_3_20_10])
def test_both_generations(text: str) -> None:
    log = log_of(text)
    assert log.failure() == ("[build 2/3] RUN echo hello && exit 3", ["hello"])
    assert log.sentence() == "step [build 2/3] RUN echo hello && exit 3 failed: hello"
    assert log.doing == "[build 2/3] RUN echo hello && exit 3: hello"


DOING = [
    ('#0 building with "default" instance using docker driver', ""),
    ("#1 [internal] load build definition from Dockerfile", "[internal] load build definition from Dockerfile"),
    ("#1 SHA", "[internal] load build definition from Dockerfile"),
    ("#1 transferring dockerfile: 37B done", "[internal] load build definition from Dockerfile: transferring doc…"),
    ("#1 DONE 0.0s", "[internal] load build definition from Dockerfile: transferring doc…"),
    ("", "[internal] load build definition from Dockerfile: transferring doc…"),
    ("#5 [base 1/9] FROM nvidia/cuda:1@SHA", "[base 1/9] FROM nvidia/cuda:1@sha256:0123456789ab"),
    ("#5 resolve nvidia/cuda:1 done", "[base 1/9] FROM nvidia/cuda:1@sha256:0123456789ab: resolve nvidia/cuda:1 done"),
    ("#5 DONE 0.0s", "[base 1/9] FROM nvidia/cuda:1@sha256:0123456789ab: resolve nvidia/cuda:1 done"),
    # A step that was done goes on: its image is pulled late.
    ("#5 [base 1/9] FROM nvidia/cuda:1@SHA", "[base 1/9] FROM nvidia/cuda:1@sha256:0123456789ab"),
    ("#5 SHA 12.58MB / 1.2GB 3.2s", "[base 1/9] FROM nvidia/cuda:1@sha256:0123456789ab: sha256:0123456789ab 12.5…"),
    (
        "#5 extracting SHA 5.1s",
        "[base 1/9] FROM nvidia/cuda:1@sha256:0123456789ab: extracting sha256:0123456789ab 5.1s",
    ),
    ("#5 ...", "[base 1/9] FROM nvidia/cuda:1@sha256:0123456789ab: extracting sha256:0123456789ab 5.1s"),
    ("#6 [rust 2/4] RUN   cargo  build", "[rust 2/4] RUN cargo build"),
    ("#6 0.101 \x1b[32mCompiling\x1b[0m serde", "[rust 2/4] RUN cargo build: Compiling serde"),
    ("#6 0.2   10%\r   20%\r   30%\r", "[rust 2/4] RUN cargo build: 30%"),
    ("#6 0.3 40%\r#6 0.4 50%", "[rust 2/4] RUN cargo build: 50%"),
    ("#6 0.5", "[rust 2/4] RUN cargo build: 50%"),
    ("#6 0.5 ", "[rust 2/4] RUN cargo build: 50%"),
    ("#5 [base 1/9] FROM nvidia/cuda:1@SHA", "[base 1/9] FROM nvidia/cuda:1@sha256:0123456789ab: extracting sha25…"),
    ("#6 [rust 2/4] RUN   cargo  build", "[rust 2/4] RUN cargo build: 50%"),
    ("#6 CANCELED", "[base 1/9] FROM nvidia/cuda:1@sha256:0123456789ab: extracting sha256:0123456789ab 5.1s"),
    ("#5 DONE 9.0s", "[base 1/9] FROM nvidia/cuda:1@sha256:0123456789ab: extracting sha256:0123456789ab 5.1s"),
    # Nothing of it belongs to a step that runs.
    ("#6 0.7 late", "[base 1/9] FROM nvidia/cuda:1@sha256:0123456789ab: extracting sha256:0123456789ab 5.1s"),
    ("#99 0.7 unknown", "[base 1/9] FROM nvidia/cuda:1@sha256:0123456789ab: extracting sha256:0123456789ab 5.1s"),
]


def test_doing() -> None:
    log = BuildLog()
    assert log.doing == ""
    for line, doing in DOING:
        log.feed(line.replace("SHA", SHA) + "\n")
        if doing.endswith("…"):
            assert log.doing.startswith(doing[:-1]), line
        else:
            assert log.doing == doing, line


def test_doing_is_short() -> None:
    log = log_of("#7 [build 3/9] RUN %s\n#7 0.1 %s" % ("x " * 500, "y" * 5000))
    assert len(log.doing) == 150
    assert log.doing.startswith("[build 3/9] RUN x x")
    assert "…: yyy" in log.doing


def test_interleaved_steps() -> None:
    log = log_of(
        "#6 [a 1/2] RUN one\n#6 0.1 first\n#6 ...\n\n#7 [b 1/2] RUN two\n#7 0.1 other\n#7 ...\n\n"
        "#6 [a 1/2] RUN one\n#6 0.2 second\n#6 ERROR: exit code: 1\n\n#7 [b 1/2] RUN two\n#7 CANCELED\n"
    )
    assert log.failure() == ("[a 1/2] RUN one", ["first", "second"])


def test_only_the_last_lines_are_shown() -> None:
    assert run_log(*map(str, range(500))).failure()[1] == [str(number) for number in range(485, 500)]


def test_memory_is_bounded() -> None:
    log = BuildLog()
    for number in range(300):
        log.feed("#%d [build %d/300] RUN x" % (number, number))
        for dummy in range(300):
            log.feed("#%d 0.1 %s" % (number, "y" * 2000))
        log.feed("#%d DONE 1.0s" % number)
        log.feed("loose " + "z" * 2000)
    steps = [log._latest, *log._running.values()]
    assert len(steps) == 1
    assert sum(len(line) for line in steps[0].lines) <= 200 * 1000
    assert sum(len(line) for line in log._loose) <= 15 * 1000


def test_cache_that_cannot_be_read_fails_no_build() -> None:
    log = log_of("#5 importing cache manifest from x\n#5 ERROR: x: not found\n" + EXIT_3.replace("#5 ", "#9 "))
    assert log.failure() == ("[build 2/3] RUN echo hello && exit 3", ["hello"])


PARSE = "dockerfile parse error on line 3: unknown instruction: GCC"
HEREDOC = (
    "this Docker takes 'GCC' for an instruction, as those do that are too old for heredocs: "
    "build on a host with Docker 23 or newer"
)


@pytest.mark.parametrize(
    ("text", "last_word", "sentence"),
    [
        (
            "Dockerfile:3\n--------------------\n   3 | >>> gcc --version\n--------------------\n"
            "ERROR: failed to solve: " + PARSE,
            "ERROR: failed to solve: " + PARSE,
            HEREDOC,
        ),
        (
            "failed to solve with frontend dockerfile.v0: failed to create LLB definition: " + PARSE,
            "failed to solve with frontend dockerfile.v0: failed to create LLB definition: " + PARSE,
            HEREDOC,
        ),
        (
            "failed to solve: rpc error: code = Unknown desc = failed to solve with frontend dockerfile.v0: "
            "failed to create LLB definition: target stage gpu could not be found",
            "failed to solve: rpc error: code = Unknown desc = failed to solve with frontend dockerfile.v0: "
            "failed to create LLB definition: target stage gpu could not be found",
            "the build failed: target stage gpu could not be found",
        ),
        (
            'ERROR: failed to build: failed to solve: target stage "gpu" could not be found\n\n'
            "View build details: docker-desktop://dashboard/build/x",
            'ERROR: failed to build: failed to solve: target stage "gpu" could not be found',
            'the build failed: target stage "gpu" could not be found',
        ),
        (
            "ERROR: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "ERROR: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "the build failed: "
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        ),
        ("unknown flag: --progress", "unknown flag: --progress", "the build failed: unknown flag: --progress"),
    ],
)
def test_failure_before_any_step(text: str, last_word: str, sentence: str) -> None:
    log = log_of(BEGIN + text + "\n")
    assert log.failure() == ("", [last_word])
    assert log.sentence() == sentence


def test_failure_that_says_nothing() -> None:
    assert BuildLog().failure() == ("", [])
    assert BuildLog().sentence() == "the build failed: it printed nothing"


SETUP = "step [build 3/9] RUN python3 setup.py"
TRACEBACK = ["Traceback (most recent call last):"] + ['  File "setup.py", line %d, in x' % line for line in range(60)]
TRACEBACK += ["subprocess.CalledProcessError: Command '['cmake', '-j=8']' returned non-zero exit status 1."]
OUT_OF_MEMORY = SETUP + " ran out of memory: "


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (["c++: fatal error: Killed signal terminated program cc1plus", *TRACEBACK], "exit code: 1"),
        (["g++: internal compiler error: Killed (program cc1plus)", *TRACEBACK], "exit code: 1"),
        (["nvcc error   : 'cicc' died due to signal 9 (Kill signal)", "ninja: build stopped"], "exit code: 1"),
        (["/bin/sh: line 1:    12 Killed                  python3 setup.py"], "exit code: 137"),
        ([], 'process "/bin/sh -c python3 setup.py" did not complete successfully: exit code: 137'),
        ([], "executor failed running [/bin/sh -c python3 setup.py]: exit code: 137"),
        (["rustc: signal: killed"], "exit code: 101"),
        (["OSError: [Errno 12] Cannot allocate memory"], "exit code: 1"),
    ],
)
def test_out_of_memory(lines: list, error: str) -> None:
    assert run_log(*lines, error=error).sentence(8) == OUT_OF_MEMORY + "set max_jobs to 4 or less, it was 8"


@pytest.mark.parametrize(
    ("max_jobs", "way_out"),
    [
        ("8", "set max_jobs to 4 or less, it was 8"),
        (3, "set max_jobs to 1 or less, it was 3"),
        (1, "give this host more of it, as a single compiler job is too much"),
        (0, "set max_jobs lower"),
        (None, "set max_jobs lower"),
        ("all", "set max_jobs lower"),
    ],
)
def test_less_memory(max_jobs: object, way_out: str) -> None:
    assert run_log(error="exit code: 137").sentence(max_jobs) == OUT_OF_MEMORY + way_out


NETWORK = SETUP + " needs the network and did not get through: let this host reach it, or set a proxy"


@pytest.mark.parametrize(
    "line",
    [
        "curl: (6) Could not resolve host: astral.sh",
        "W: Failed to fetch http://x  Temporary failure resolving 'archive.ubuntu.com'",
        "Failed to establish a new connection: [Errno -3] Temporary failure in name resolution'))",
        "fatal: unable to access 'https://x/': Could not resolve host: github.com",
        "  Caused by: failed to lookup address information: Name or service not known",
        "dial tcp: lookup proxy.golang.org: no such host",
    ],
)
def test_network(line: str) -> None:
    assert run_log("Collecting torch", line, "Error").sentence() == NETWORK


def test_network_that_came_back() -> None:
    log = run_log("curl: (6) Could not resolve host: x", *["[%d/20] ok" % n for n in range(20)], "x.cu(1): error: y")
    assert log.sentence() == SETUP + " failed: x.cu(1): error: y"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (
            "#7 [build 3/9] RUN pip\n#7 1.0 OSError: [Errno 28] No space left on device\n#7 ERROR: exit code: 1",
            "RUN pip",
        ),
        (
            "#7 exporting to image\n#7 exporting layers\n#7 ERROR: write /x: no space left on device",
            "exporting to image",
        ),
        ("#7 [a 1/2] FROM docker.io/x:1\n#7 ERROR: failed to copy: no space left on device", "FROM docker.io/x:1"),
    ],
)
def test_no_space(text: str, where: str) -> None:
    sentence = log_of(BEGIN + text).sentence()
    assert sentence.startswith("step ")
    assert sentence.endswith(where + " found no space left on device: free some where Docker keeps its images")


DENIED = (
    "pull access denied, repository does not exist or may require authorization: server message: "
    "insufficient_scope: authorization failed"
)
WAY_OUT = "check its name and that this host reaches its registry, or name another with a build argument"


@pytest.mark.parametrize(
    ("text", "image", "reason"),
    [
        (
            "#2 [internal] load metadata for docker.io/library/nope:1\n#2 ERROR: docker.io/library/nope:1: not found\n"
            "ERROR: failed to solve: nope:1: failed to resolve source metadata for docker.io/library/nope:1: x",
            " 'docker.io/library/nope:1'",
            "docker.io/library/nope:1: not found",
        ),
        (
            "#2 [internal] load metadata for docker.io/library/nope:1\n#2 SHA\n#2 ERROR: %s\n"
            "failed to solve with frontend dockerfile.v0: failed to create LLB definition: %s" % (DENIED, DENIED),
            " 'docker.io/library/nope:1'",
            DENIED,
        ),
        (
            "#5 [base 1/9] FROM docker.io/nvidia/cuda:1@SHA\n#5 SHA 1MB / 2MB\n"
            "#5 ERROR: failed to copy: httpReadSeeker: failed open: unexpected status code 503",
            " 'docker.io/nvidia/cuda:1'",
            "failed to copy: httpReadSeeker: failed open: unexpected status code 503",
        ),
        (
            "ERROR: failed to solve: x:1: failed to resolve source metadata for docker.io/library/x:1: "
            "dial tcp: lookup registry on 1.1.1.1:53: no such host",
            " 'docker.io/library/x:1'",
            None,
        ),
        (
            "failed to solve with frontend dockerfile.v0: failed to do request: dial tcp 10.0.0.1:443: i/o timeout",
            "",
            "failed to do request: dial tcp 10.0.0.1:443: i/o timeout",
        ),
    ],
)
def test_base_image(text: str, image: str, reason: str | None) -> None:
    sentence = log_of(text).sentence()
    assert sentence.startswith("the base image%s cannot be pulled (" % image)
    assert sentence.endswith("): " + WAY_OUT)
    if reason:
        assert "(%s)" % reason in sentence


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["hello"], "hello"),
        ([], 'process "/bin/sh -c x" did not complete successfully: exit code: 1'),
        (["x.cu(12): error: identifier is undefined", "ninja: build stopped: subcommand failed.", *TRACEBACK], None),
        (["E: Unable to locate package gcc-99"], "E: Unable to locate package gcc-99"),
        (
            ["ERROR: No matching distribution found for torch==99", "", "[notice] A new release of pip is available"],
            "No matching distribution found for torch==99",
        ),
        (
            ["error: subprocess-exited-with-error", "  × pip failed", "note: This is not a problem with pip."],
            "error: subprocess-exited-with-error",
        ),
    ],
)
def test_other_failures(lines: list, said: str | None) -> None:
    log = run_log(*lines, error='process "/bin/sh -c x" did not complete successfully: exit code: 1')
    assert log.sentence() == SETUP + " failed: " + (said or "x.cu(12): error: identifier is undefined")


def test_step_that_copies() -> None:
    log = log_of(
        BEGIN + '#7 [build 2/3] COPY nope /\n#7 ERROR: failed to calculate checksum of ref x: "/nope": not found'
    )
    assert log.sentence() == (
        'step [build 2/3] COPY nope / failed: failed to calculate checksum of ref x: "/nope": not found'
    )
