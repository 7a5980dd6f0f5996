"""Which processes are one run: from flags, or as JAX detects a cluster."""

import os
import socket
import subprocess
import sys

import pytest
from jax._src.clusters import cloud_tpu_cluster

from ctp_jax.errors import UserError
from ctp_jax.train.distributed import cluster
from ctp_jax.train.distributed.cluster import Cluster, find
from tests.train.distributed import toy_processes

CLUSTERS = ("SLURM_", "OMPI_", "KUBERNETES_", "TPU_", "MEGASCALE_")
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "gpu[003-004]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}


@pytest.fixture(autouse=True)
def environ(monkeypatch):
    """No cluster; a function that sets variables."""
    for name in os.environ:
        if name.startswith(CLUSTERS):
            monkeypatch.delenv(name)

    def change(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return change


def detected():
    return find(None, None, None)


def test_nothing_said_is_one_process():
    assert detected() is None


def test_flags_come_first(environ):
    environ(**SLURM)
    assert find("host:123", 2, 1) == Cluster("flags", "host:123", 2, 1)
    assert find("[::1]:99", 2, 0).coordinator == "[::1]:99"
    assert find("host:123", 1, 0) is None
    assert find(None, 1, None) is None


@pytest.mark.parametrize(
    "flags,message",
    [
        (("host:1", None, None), "without --process_count and --process_index"),
        ((None, 2, 0), "without --coordinator"),
        ((None, None, 0), "without --coordinator and --process_count"),
        (("", 2, 0), "without --coordinator"),
        (("host", 2, 0), "--coordinator=host: must be HOST:PORT"),
        (("a b:1", 2, 0), "must be HOST:PORT"),
        (("host:0", 2, 0), "must be HOST:PORT"),
        (("host:65536", 2, 0), "must be HOST:PORT"),
        (("host:1", 2, 2), "--process_index=2: must be from 0 to 1"),
        (("host:1", 1, 1), "--process_index=1: must be from 0 to 0"),
    ],
)
def test_flags_that_contradict_each_other(flags, message):
    with pytest.raises(UserError, match=message):
        find(*flags)


def test_slurm(environ):
    environ(**SLURM)
    assert detected() == Cluster("SlurmCluster")
    environ(SLURM_NTASKS="1")
    assert detected() is None


def test_a_batch_script_is_no_task(environ):
    """It has the variables of the job, but starts the tasks with `srun`."""
    environ(SLURM_JOB_ID="4711", SLURM_NTASKS="8", SLURM_PROCID="0")
    assert detected() is None


def test_open_mpi(environ):
    environ(OMPI_MCA_orte_hnp_uri="1531576320.0;tcp://10.96.0.1:34911")
    environ(OMPI_COMM_WORLD_SIZE="4")
    assert detected() == Cluster("OmpiCluster")


def test_hosts_of_a_tpu_slice(environ, monkeypatch):
    environ(TPU_WORKER_HOSTNAMES="a,b", MEGASCALE_NUM_SLICES="", TPU_SKIP_MDS_QUERY="1")
    assert detected() is None  # there is no chip here
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    assert detected() == Cluster("GkeTpuCluster")
    environ(TPU_WORKER_HOSTNAMES="a")
    assert detected() is None


def test_a_cluster_that_cannot_be_read_is_named(environ):
    environ(**{**SLURM, "SLURM_NTASKS": "two"})
    with pytest.raises(UserError, match=r"SlurmCluster.*'two'.*--process_count=1"):
        detected()


MEET = """
import jax
from ctp_jax import cli
from ctp_jax.errors import UserError
from ctp_jax.train.distributed import cluster, coordination
coordination._MEET = {seconds}
try:
    with coordination.joined(cluster.Cluster("SlurmCluster")):
        print(jax.config.read("jax_cuda_visible_devices"), jax.process_count())
except UserError as error:
    cli.fail(error)
"""


def meet(seconds, **variables):
    """A task that connects to the others under Slurm."""
    return subprocess.run(
        [sys.executable, "-c", MEET.format(seconds=seconds)],
        check=False,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            **SLURM,
            "SLURM_STEP_NODELIST": "localhost",
            "JAX_COORDINATOR_PORT": str(toy_processes.free_port()),
            **variables,
        },
    )


def test_a_task_drives_all_devices_that_it_sees():
    done = meet(60, SLURM_NTASKS="1", SLURM_PROCID="0")
    assert done.stdout == "all 1\n", done.stderr


@pytest.mark.parametrize("index", ["0", "1"])
def test_nobody_else_came(index):
    done = meet(1, SLURM_PROCID=index)
    assert done.returncode == 75
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"error: process {index} did not meet the others at localhost"
    )
    assert "SlurmCluster" in line and "1 s have passed" in line


def test_what_jax_cannot_find_is_said():
    done = meet(60, SLURM_PROCID="2")
    assert done.returncode == 75 and "process_id=2, num_processes=2" in done.stderr


LISTEN = """
import pathlib
from ctp_jax.train.distributed import cluster, coordination
with coordination.joined(cluster.Cluster("flags", "{host}:{port}", 1, 0)):
    for family in ("tcp", "tcp6"):
        for line in pathlib.Path("/proc/net", family).read_text().splitlines()[1:]:
            place, state = line.split()[1], line.split()[3]
            if state == "0A" and place.endswith(":{port:04X}"):
                print(place.partition(":")[0])
"""


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="needs Linux's /proc")
def test_process_0_listens_where_it_was_named_only():
    text = LISTEN.format(host="127.0.0.1", port=toy_processes.free_port())
    command = [sys.executable, "-c", text]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    # As gRPC writes 127.0.0.1, in the byte order of the kernel: IPv4 within IPv6.
    (place,) = done.stdout.split()
    assert place.removeprefix(16 * "0" + "FFFF0000") == "0100007F", done.stderr


@pytest.mark.parametrize(
    ("coordinator", "listens"),
    [
        ("127.0.0.1:99", {"127.0.0.1:99"}),
        ("localhost:99", {"127.0.0.1:99", "[::1]:99"}),
        ("[::1]:99", {"[::1]:99"}),
    ],
)
def test_where_process_0_listens(coordinator, listens, environ):
    if ":" in coordinator.rpartition(":")[0] and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    said = []
    found = Cluster("flags", coordinator, 2, 0)
    assert found.listen_address(said.append) in listens and not said
    environ(JAX_COORDINATOR_BIND_ADDRESS="[::]:99")
    assert found.listen_address(said.append) is None


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_where_jax_finds_the_address_it_listens_as_jax_does():
    assert Cluster("SlurmCluster").listen_address(print) is None


def test_names_that_process_0_cannot_listen_at(monkeypatch):
    # Of a network that is for documentation.
    with pytest.raises(UserError, match="192.0.2.1 is no address of this machine"):
        Cluster("flags", "192.0.2.1:99", 2, 0).listen_address(print)
    monkeypatch.setattr(cluster, "_PATIENCE", 0)
    with pytest.raises(UserError, match="nowhere.invalid: .*: name the address"):
        Cluster("flags", "nowhere.invalid:99", 2, 0).listen_address(print)
    # Debian gives the name of a machine to an address that others cannot reach.
    found = [(socket.AF_INET, ("127.0.1.1", 0))]
    monkeypatch.setattr(cluster, "_look_up", lambda name: found)
    said = []
    named = Cluster("flags", "node7:99", 2, 0)
    assert named.listen_address(said.append) == "127.0.1.1:99"
    assert "node7 is 127.0.1.1 here" in said[0]
