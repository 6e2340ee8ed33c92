"""What nvidia-smi tells, by drivers from 418 to 610. The answers are written after real ones: see the data's README."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils import _gpu, _nvidia_smi

DATA = Path(__file__).parents[1] / "data" / "nvidia_smi"
MIB, GIB = 2**20, 2**30
QUERY = "--query-gpu=index,name,uuid,memory.total,memory.free,memory.used,driver_version,pci.bus_id"
CAPABILITIES = "--query-gpu=index,uuid,compute_cap"


def read(name: str) -> str:
    return (DATA / name).read_text()


class Smi:
    """nvidia-smi, with an answer for each question: text, (exit code, stdout, stderr), None, or what is raised."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers, self.asked = answers, []

    def __call__(self, *arguments: str) -> tuple[int, str, str] | None:
        question = " ".join(arguments).removesuffix(" --format=csv,noheader")
        self.asked.append(question)
        answer = self.answers.get(question, (2, "", ""))
        if isinstance(answer, Exception):
            raise answer
        return (0, answer, "") if isinstance(answer, str) else answer


def ask(name: str, **answers: Any) -> dict[str, Any]:
    """The answer for an XML; files of the same machine answer the other questions."""
    questions: dict[str, Any] = {"-q -x": read(name + ".xml")}
    for question, ending in ((CAPABILITIES, ".capabilities.csv"), ("-L", ".list.txt"), (QUERY, ".query.csv")):
        if (DATA / (name + ending)).exists():
            questions[question] = read(name + ending)
    return _nvidia_smi.ask(Smi({**questions, **answers}))


# file, driver, CUDA, then of the first GPU: name, architecture, capability, brand, address
GENERATIONS = [
    ("418_gtx1080ti", "418.56", "10.1", "GeForce GTX 1080 Ti", "", "", "GeForce", "00000000:01:00.0"),
    ("470_t4", "470.129.06", "11.4", "Tesla T4", "Turing", "7.5", "Tesla", "00000000:00:1E.0"),
    ("535_a100x8", "535.161.08", "12.2", "NVIDIA A100-SXM4-80GB", "Ampere", "8.0", "NVIDIA", "00000000:07:00.0"),
    (
        "535_vgpu", "535.129.03", "12.2", "GRID A100D-20C", "Ampere", "", "NVIDIA Virtual Compute Server",
        "00000000:02:00.0",
    ),
    ("550_h100x2", "550.90.07", "12.4", "NVIDIA H100 80GB HBM3", "Hopper", "9.0", "NVIDIA", "00000000:19:00.0"),
    (
        "570_wsl", "572.16", "12.8", "NVIDIA GeForce RTX 4070 Laptop GPU", "Ada Lovelace", "8.9", "GeForce",
        "00000000:01:00.0",
    ),
    ("580_rtx5090", "580.95.05", "13.0", "NVIDIA GeForce RTX 5090", "Blackwell", "12.0", "GeForce", "00000000:0B:00.0"),
    ("580_gb10", "580.95.05", "13.0", "NVIDIA GB10", "Blackwell", "12.1", "NVIDIA", "0000000F:01:00.0"),
    (
        "610_rtxpro6000", "610.43.02", "13.3", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "Blackwell", "",
        "NVIDIA RTX", "00000000:61:00.0",
    ),
]  # fmt: skip


@pytest.mark.parametrize("expected", GENERATIONS, ids=lambda expected: expected[0])
def test_every_generation_is_read(expected: tuple[str, ...]) -> None:
    answer = ask(expected[0])
    gpu = answer["gpus"][0]
    found = [gpu[key] for key in ("name", "architecture", "compute_capability", "brand", "pci_bus_id")]
    assert [answer["version"], answer["cuda"], *found] == list(expected[1:])
    assert (answer["problems"], answer["reason"]) == ([], "")


def test_every_file_of_xml_is_in_the_table() -> None:
    assert {path.stem for path in DATA.glob("*.xml")} == {row[0] for row in GENERATIONS}


# file, then of the first GPU: memory (total, reserved, used, free) in MiB, compute mode, persistence mode, ECC
STATES = [
    ("418_gtx1080ti", (11176, 0, 1331, 9845), "Default", False, None),
    ("470_t4", (15109, 0, 1032, 14077), "Default", True, True),
    ("535_a100x8", (81920, 587, 73106, 8227), "Default", True, True),
    ("535_vgpu", (20480, 2088, 1, 18390), "Default", None, None),
    ("550_h100x2", (81559, 530, 72770, 8259), "Default", True, True),
    ("580_rtx5090", (32607, 527, 29102, 2978), "Default", True, None),
    ("580_gb10", (0, 0, 0, 0), "Default", True, None),
    ("610_rtxpro6000", (97887, 637, 0, 97250), "Default", True, False),
]


@pytest.mark.parametrize("expected", STATES, ids=lambda expected: expected[0])
def test_memory_and_modes(expected: tuple[Any, ...]) -> None:
    gpu = ask(expected[0])["gpus"][0]
    memory = dict(zip(("total", "reserved", "used", "free"), (size * MIB for size in expected[1]), strict=True))
    assert gpu["memory"] == memory
    assert (gpu["compute_mode"], gpu["persistence_mode"], gpu["ecc"]) == expected[2:]


def test_a_gpu_in_full() -> None:
    answer = ask("550_h100x2", **{"topo -m": read("topo_2.txt")})
    (first, second), links = answer["gpus"], answer["links"]
    assert links == [(0, 1, "NV18")]
    assert second == {
        "index": 1,
        "uuid": second["uuid"],
        "name": "NVIDIA H100 80GB HBM3",
        "architecture": "Hopper",
        "compute_capability": "9.0",
        "brand": "NVIDIA",
        "pci_bus_id": "00000000:3B:00.0",
        "memory": {"total": 81559 * MIB, "reserved": 530 * MIB, "used": MIB, "free": 81028 * MIB},
        "compute_mode": "Exclusive_Process",
        "persistence_mode": True,
        "ecc": True,
        "mig": {"enabled": False, "pending": False, "devices": []},
        "fabric": {"state": "In Progress", "status": ""},
        "processes": [],
    }
    assert first["fabric"] == {"state": "Completed", "status": "Success"}
    assert first["processes"] == [
        {"pid": 90411, "name": "/opt/venv/bin/python3", "type": "C", "memory": 72760 * MIB},
    ]


def test_the_fabric_of_gpus_without_one_is_empty() -> None:
    for name in ("418_gtx1080ti", "470_t4", "535_a100x8", "580_rtx5090"):
        assert ask(name)["gpus"][0]["fabric"] == {"state": "", "status": ""}


# file, then (pid, name, type, MiB) of each process of the first GPU
PROCESSES = [
    ("418_gtx1080ti", [(1204, "/usr/lib/xorg/Xorg", "G", 118), (8006, "python", "C", 1203)]),
    ("470_t4", [(22107, "/usr/bin/python3", "C", 1029)]),
    ("570_wsl", [(524, "", "C", None), (33, "/Xwayland", "G", None)]),
    (
        "580_rtx5090",
        [
            (3301, "/usr/lib/xorg/Xorg", "G", 41),
            (7740, "/opt/app/app --flags=a&b <x>", "C+G", 9),
            (9120, "VLLM::EngineCore", "C", 29040),
        ],
    ),
    ("610_rtxpro6000", []),
]


@pytest.mark.parametrize(("name", "expected"), PROCESSES)
def test_processes(name: str, expected: list[tuple[Any, ...]]) -> None:
    found = [tuple(process.values()) for process in ask(name)["gpus"][0]["processes"]]
    assert found == [(pid, name, kind, size and size * MIB) for pid, name, kind, size in expected]


def test_mig_devices_get_their_uuids_and_profiles_from_the_list() -> None:
    gpus = ask("535_a100x8")["gpus"]
    assert [gpu["mig"]["enabled"] for gpu in gpus] == [False] * 7 + [True]
    listed = [line.rpartition("UUID: ")[2].rstrip(")") for line in read("535_a100x8.list.txt").splitlines()]
    assert [gpu["uuid"] for gpu in gpus] == listed[:8]
    devices = gpus[7]["mig"]["devices"]
    assert [device["uuid"] for device in devices] == listed[8:]
    assert devices[2] == {
        "uuid": listed[10],
        "profile": "1g.10gb",
        "gpu_instance": 13,
        "compute_instance": 0,
        "memory": {"total": 9728 * MIB, "used": 8012 * MIB, "free": 1716 * MIB},
    }
    assert [device["profile"] for device in devices] == ["3g.40gb", "2g.20gb", "1g.10gb"]


def test_mig_devices_without_a_list_have_no_names() -> None:
    devices = ask("535_a100x8", **{"-L": _gpu.Late("late")})["gpus"][7]["mig"]["devices"]
    assert [(device["uuid"], device["profile"], device["gpu_instance"]) for device in devices] == [
        ("", "", 1), ("", "", 5), ("", "", 13),
    ]  # fmt: skip
    assert set(devices[0]) == {"uuid", "profile", "gpu_instance", "compute_instance", "memory"}


def test_mig_that_waits_for_a_reset() -> None:
    mig = ask("610_rtxpro6000")["gpus"][0]["mig"]
    assert mig == {"enabled": False, "pending": True, "devices": []}


def test_both_forms_of_mig_uuids() -> None:
    found = _nvidia_smi.parse_list(read("460_a100.list.txt"))
    assert len(found) == 1
    gpu, devices = found.popitem()
    assert devices == {
        0: ("4g.20gb", f"MIG-{gpu}/2/0"),
        1: ("1c.2g.10gb", f"MIG-{gpu}/3/0"),
        2: ("1g.5gb+me", f"MIG-{gpu}/9/0"),
    }
    assert [len(devices) for devices in _nvidia_smi.parse_list(read("535_a100x8.list.txt")).values()] == [0] * 7 + [3]


TOPOLOGIES = [
    ("topo_1.txt", []),
    ("topo_2.txt", [(0, 1, "NV18")]),
    ("topo_2_old.txt", [(0, 1, "PHB")]),
    (
        "topo_4.txt",
        [(0, 1, "NODE"), (0, 2, "SYS"), (0, 3, "SYS"), (1, 2, "SYS"), (1, 3, "SYS"), (2, 3, "NODE")],
    ),
    ("topo_8.txt", [(one, other, "NV12") for one, other in itertools.combinations(range(8), 2)]),
]


@pytest.mark.parametrize(("name", "expected"), TOPOLOGIES)
def test_topology(name: str, expected: list[tuple[int, int, str]]) -> None:
    assert _nvidia_smi.parse_topology(read(name)) == expected


@pytest.mark.parametrize("text", ["", "\nLegend:\n\n  X    = Self\n  NV#  = bonded\n", "GPU0\tNV1\n", "Failed\n"])
def test_what_is_no_topology_has_no_links(text: str) -> None:
    assert _nvidia_smi.parse_topology(text) == []


def test_the_topology_keeps_the_numbers_of_gpus_where_one_is_gone() -> None:
    text = "\tGPU0\tGPU2\tCPU Affinity\nGPU0\t X \tPXB\t0-7\nGPU2\tPXB\t X \t0-7\n"
    assert _nvidia_smi.parse_topology(text) == [(0, 2, "PXB")]


def test_only_what_is_needed_is_asked() -> None:
    single = Smi({"-q -x": read("470_t4.xml")})
    _nvidia_smi.ask(single)
    assert single.asked == ["-q -x", CAPABILITIES]
    many = Smi({"-q -x": read("535_a100x8.xml")})
    _nvidia_smi.ask(many)
    assert many.asked == ["-q -x", CAPABILITIES, "-L", "topo -m"]


def test_the_index_is_that_of_the_query_not_the_place_in_the_xml() -> None:
    rows = "".join(
        f"{index}, {line.split(', ')[1]}, 9.0\n"
        for index, line in zip((3, 5), read("550_h100x2.capabilities.csv").splitlines(), strict=True)
    )
    answer = _nvidia_smi.ask(Smi({"-q -x": read("550_h100x2.xml"), CAPABILITIES: rows}))
    assert [gpu["index"] for gpu in answer["gpus"]] == [3, 5]


LOST_UNKNOWN = (
    "the GPU 0000:01:00.0 does not answer (Unknown Error): look for its Xid in dmesg, then reset the GPU or reboot the "
    "host; when that does not help, the card or its slot is broken"
)
# file of what is printed, exit code, reason, text, library
ERRORS = [
    (
        "error_mismatch.txt", 18, "mismatch", "Failed to initialize NVML: Driver/library version mismatch", "535.161",
    ),
    (
        "error_no_driver.txt", 9, "no_driver",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver", "",
    ),
    ("error_no_devices.txt", 6, "no_devices", "No devices were found", ""),
    (
        "error_no_library.txt", 12, "no_library", "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system", "",
    ),
    ("error_unknown.txt", 255, "other", "Failed to initialize NVML: Unknown Error", ""),
]  # fmt: skip


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(("name", "code", "reason", "text", "library"), ERRORS)
def test_errors(name: str, code: int, reason: str, text: str, library: str, stream: str) -> None:
    said = (read(name), "") if stream == "stdout" else ("", read(name))
    smi = Smi({"-q -x": (code, *said)})
    answer = _nvidia_smi.ask(smi)
    assert (answer["reason"], answer["text"], answer["library"]) == (reason, text, library)
    assert (answer["gpus"], answer["problems"], smi.asked) == ([], [], ["-q -x"])


# what is printed, how the GPU is named, why
LOST = [
    ("GPU0000:01:00.0: Unknown Error", "0000:01:00.0", "Unknown Error"),
    ("GPU3: 0000:5F:00.0: Unknown Error", "0000:5F:00.0", "Unknown Error"),
    ("GPU2: Unknown Error", "2", "Unknown Error"),
    (
        "GPU 0000:41:00.0: GPU is lost.  Reboot the system to recover this GPU",
        "0000:41:00.0",
        "GPU is lost.  Reboot the system to recover this GPU",
    ),
]


@pytest.mark.parametrize(("said", "name", "why"), LOST)
def test_a_lost_gpu_is_named(said: str, name: str, why: str) -> None:
    said = f"Unable to determine the device handle for {said}\n"
    answer = _nvidia_smi.ask(Smi({"-q -x": (15, said, ""), QUERY: (15, said, "")}))
    assert answer["problems"] == [_gpu.lost(name, why)]
    assert (answer["gpus"], answer["reason"]) == ([], "")


@pytest.mark.parametrize("name", ["error_lost.txt", "error_lost_reboot.txt"])
def test_the_errors_of_lost_gpus_are_of_these_forms(name: str) -> None:
    assert any(read(name) == f"Unable to determine the device handle for {said}\n" for said, _name, _why in LOST)


def test_a_lost_gpu_in_a_sentence() -> None:
    answer = _nvidia_smi.ask(Smi({"-q -x": (15, read("error_lost.txt"), "")}))
    assert answer["problems"] == [LOST_UNKNOWN]


def test_the_gpus_beside_a_lost_one_are_told_without_xml() -> None:
    smi = Smi({"-q -x": (15, read("error_lost.txt"), ""), QUERY: (15, read("550_one_lost.query.csv"), "")})
    answer = _nvidia_smi.ask(smi)
    (gpu,) = answer["gpus"]
    assert (gpu["index"], gpu["name"], gpu["pci_bus_id"]) == (0, "NVIDIA H100 80GB HBM3", "00000000:19:00.0")
    assert gpu["memory"] == {"total": 81559 * MIB, "reserved": 0, "used": 72770 * MIB, "free": 8259 * MIB}
    assert answer["version"] == "550.90.07"
    assert answer["problems"] == [LOST_UNKNOWN, _gpu.lost("0000:3B:00.0", "Unknown Error")]


@pytest.mark.parametrize("why", ["GPU is lost", "[Unknown Error]", "[GPU requires reset]"])
def test_a_gpu_that_is_lost_within_the_xml(why: str) -> None:
    healthy = read("550_h100x2.xml")
    first = healthy[healthy.index("<uuid>") + 6 : healthy.index("</uuid>")]
    answer = _nvidia_smi.ask(Smi({"-q -x": healthy.replace(first, why)}))
    assert [gpu["index"] for gpu in answer["gpus"]] == [1]
    assert answer["problems"] == [_gpu.lost("00000000:19:00.0", why.strip("[]"))]


def test_a_warning_before_the_xml_is_no_xml() -> None:
    warned = "Unable to determine the device handle for GPU1: 0000:44:00.0: Unknown Error\n" + read("470_t4.xml")
    answer = _nvidia_smi.ask(Smi({"-q -x": (0, warned, "")}))
    assert [gpu["name"] for gpu in answer["gpus"]] == ["Tesla T4"]
    assert answer["problems"] == [_gpu.lost("0000:44:00.0", "Unknown Error")]


@pytest.mark.parametrize("cut", ["<temperature>", "</gpu>", "</nvidia_smi_log>"])
def test_xml_that_is_cut_off_is_replaced_by_a_query(cut: str) -> None:
    whole = read("418_gtx1080ti.xml")
    smi = Smi({"-q -x": (1, whole[: whole.index(cut)], ""), QUERY: read("418_gtx1080ti.query.csv")})
    answer = _nvidia_smi.ask(smi)
    told = ask("418_gtx1080ti")["gpus"][0]
    same = ("index", "uuid", "name", "pci_bus_id", "memory")
    assert [answer["gpus"][0][key] for key in same] == [told[key] for key in same]
    assert (answer["version"], answer["reason"], answer["problems"]) == ("418.56", "", [])


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("", "nvidia-smi -q -x has printed no XML, exit code 3"),
        ("Segmentation fault. More of it", "Segmentation fault"),
        ("<nvidia_smi_log><gpu>", "nvidia-smi -q -x has printed XML that cannot be read"),
    ],
)
def test_what_cannot_be_read_is_quoted(output: str, text: str) -> None:
    answer = _nvidia_smi.ask(Smi({"-q -x": (3, output, "")}))
    assert answer["reason"] == "other"
    assert answer["text"].startswith(text)


def test_xml_without_gpus() -> None:
    empty = "<?xml version='1.0'?><nvidia_smi_log><driver_version>550.54.15</driver_version></nvidia_smi_log>"
    answer = _nvidia_smi.ask(Smi({"-q -x": empty}))
    assert (answer["gpus"], answer["reason"], answer["version"]) == ([], "no_devices", "550.54.15")


def test_no_nvidia_smi() -> None:
    assert _nvidia_smi.ask(Smi({"-q -x": None}))["reason"] == "missing"


def test_after_one_question_that_hangs_no_other_is_asked() -> None:
    smi = Smi({"-q -x": _gpu.Late("it hangs")})
    answer = _nvidia_smi.ask(smi)
    assert (answer["problems"], answer["reason"], answer["gpus"]) == (["it hangs"], "", [])
    assert smi.asked == ["-q -x"]


def test_what_was_told_before_a_question_hung_is_kept() -> None:
    smi = Smi({"-q -x": read("550_h100x2.xml"), "topo -m": _gpu.Late("it hangs")})
    answer = _nvidia_smi.ask(smi)
    assert [gpu["compute_capability"] for gpu in answer["gpus"]] == ["9.0", "9.0"]
    assert (answer["links"], answer["problems"]) == ([], ["it hangs"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0, GPU-a, 8.6\n1, GPU-b, 12.0\n", {"GPU-a": (0, "8.6"), "GPU-b": (1, "12.0")}),
        ("0, GPU-a, [N/A]\n", {"GPU-a": (0, "")}),
        ('Field "compute_cap" is not a valid field to query.\n\n', {}),
        ("No devices were found\n", {}),
        ("", {}),
    ],
)
def test_capabilities(text: str, expected: dict[str, Any]) -> None:
    assert _nvidia_smi.parse_capabilities(text) == expected


def document(**values: str) -> str:
    inner = "".join(
        f"<{name}>{value}</{name}>" for name, value in {"uuid": "GPU-a", "product_name": "A", **values}.items()
    )
    return f"<nvidia_smi_log><gpu id='00000000:01:00.0'>{inner}</gpu></nvidia_smi_log>"


@pytest.mark.parametrize(
    "nothing",
    ["N/A", "[N/A]", "Not Supported", "[Not Supported]", "Unknown Error", "ERR!", "", " \n ",
     "Requested functionality has been deprecated", "Insufficient Permissions"],
)  # fmt: skip
def test_what_stands_for_nothing(nothing: str) -> None:
    (gpu,) = _nvidia_smi.parse_xml(
        document(
            product_architecture=nothing,
            persistence_mode=nothing,
            compute_mode=nothing,
            ecc_mode=f"<current_ecc>{nothing}</current_ecc>",
            mig_mode=f"<current_mig>{nothing}</current_mig>",
            fb_memory_usage=f"<total>{nothing}</total>",
            fabric=f"<state>{nothing}</state>",
            processes=f"<process_info><pid>{nothing}</pid></process_info>",
        )
    )["gpus"]
    assert gpu == _gpu.gpu(0, uuid="GPU-a", name="A", pci_bus_id="00000000:01:00.0")


@pytest.mark.parametrize(
    ("size", "expected"), [("1 GiB", GIB), ("16 MiB", 16 * MIB), ("3 KiB", 3072), ("0 MiB", 0), ("7 parsecs", 0)]
)
def test_sizes(size: str, expected: int) -> None:
    (gpu,) = _nvidia_smi.parse_xml(document(fb_memory_usage=f"<total>{size}</total>"))["gpus"]
    assert gpu["memory"]["total"] == expected


def test_a_process_whose_name_has_a_control_character() -> None:
    process = "<process_info><pid>5</pid><type>C</type><process_name>a\x1bb&amp;</process_name></process_info>"
    (gpu,) = _nvidia_smi.parse_xml(document(processes=process))["gpus"]
    assert gpu["processes"] == [{"pid": 5, "name": "ab&", "type": "C", "memory": None}]


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("Volta", "7.0"),
        ("Turing", "7.5"),
        ("Ada Lovelace", "8.9"),
        ("Hopper", "9.0"),
        ("Ampere", ""),
        ("Blackwell", ""),
    ],
)
def test_a_capability_is_derived_only_where_there_is_but_one(architecture: str, expected: str) -> None:
    assert _gpu.gpu(0, architecture=architecture)["compute_capability"] == expected
    assert _gpu.gpu(0, architecture=architecture, compute_capability="1.2")["compute_capability"] == "1.2"
