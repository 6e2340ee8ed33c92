"""The image whose label says that it is made of the same inputs has been left alone."""

IMAGE = "llmops-vllm-cpu:test"


def test_image_is_still_the_one_that_was_there(host):
    """A built one would have an entrypoint, and no busybox in its root."""
    assert host.check_output("docker image inspect --format '{{.Config.Entrypoint}}' %s", IMAGE) == "[]"
    assert host.check_output("docker run --rm %s /busybox echo hello", IMAGE) == "hello"


def test_no_build_was_begun(host):
    assert host.check_output("find /var/lib -maxdepth 1 -name 'llmops-vllm-build.*'") == ""
    assert sorted(host.check_output("docker images --format '{{.Repository}}:{{.Tag}}'").splitlines()) == [
        "llmops-vllm-base:bookworm",
        IMAGE,
    ]
