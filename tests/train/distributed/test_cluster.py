"""Where processes meet: flags, Slurm, Kubernetes, TPUs."""

import pytest

from ctp_jax.errors import UserError
from ctp_jax.train.distributed import cluster
from ctp_jax.train.distributed.cluster import Cluster, find

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[003-004]",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}


def test_nothing_said_is_one_process():
    assert find(None, None, None, {"JAX_PLATFORMS": "cpu"}) is None


def test_flags_come_first():
    found = find("host:123", 2, 1, SLURM)
    assert found == Cluster("host:123", 2, 1)
    assert find("host:123", 1, 0, SLURM) is None
    assert find("auto", None, None, {}) == Cluster("auto")
    assert find("[::1]:99", 2, 0, {}).coordinator == "[::1]:99"


@pytest.mark.parametrize(
    "flags,message",
    [
        (("host:1", None, None), "without --process_count and --process_index"),
        ((None, 2, 0), "without --coordinator"),
        (("auto", 2, None), "without --process_index"),
        (("host", 2, 0), "--coordinator=host: needs HOST:PORT"),
        (("a b:1", 2, 0), "needs HOST:PORT"),
        (("host:1", 0, 0), "--process_count=0: must be 1 or more"),
        (("host:1", 2, 2), "--process_index=2: must be from 0 to 1"),
        (("host:1", 2, -1), "must be from 0 to 1"),
    ],
)
def test_flags_that_contradict_each_other(flags, message):
    with pytest.raises(UserError, match=message):
        find(*flags, {})


def test_slurm():
    found = find(None, None, None, SLURM)
    assert (found.count, found.index, found.local_devices) == (2, 1, None)
    host, _, port = found.coordinator.partition(":")
    assert host == "gpu003" and 61440 <= int(port) < 65536
    other_step = find(None, None, None, {**SLURM, "SLURM_STEP_ID": "1"})
    assert other_step.coordinator != found.coordinator
    # A shell or a batch script in an allocation is no step of several tasks.
    assert find(None, None, None, {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) is None


@pytest.mark.parametrize(
    "per_node,visible,expected",
    [
        ("4", "0,1,2,3", (2,)),  # they share the node's GPUs
        ("4(x2)", "0,1,2,3", (2,)),
        ("1(x2)", "0,1,2,3", None),  # one task has the node
        ("1,4", "0,1,2,3", (2,)),
        ("4", "2", None),  # bound to one by Slurm
        ("4", "", None),
    ],
)
def test_slurm_tasks_that_share_a_node(per_node, visible, expected):
    environ = {
        **SLURM,
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_STEP_TASKS_PER_NODE": per_node,
        "SLURM_LOCALID": "2",
        "CUDA_VISIBLE_DEVICES": visible,
    }
    assert find(None, None, None, environ).local_devices == expected


@pytest.mark.parametrize(
    "nodes,first",
    [
        ("gpu1", "gpu1"),
        ("gpu1,big", "gpu1"),
        ("gpu[003-005,9],big", "gpu003"),
        ("gpu[7,9]", "gpu7"),
        ("rack[1-2]-node", "rack1-node"),
        ("", ""),
    ],
)
def test_first_host(nodes, first):
    assert cluster.first_host(nodes) == first


def test_slurm_without_its_node_list_is_said():
    environ = {**SLURM, "SLURM_STEP_NODELIST": ""}
    with pytest.raises(UserError, match="without SLURM_STEP_NODELIST"):
        find(None, None, None, environ)


def test_kubernetes():
    environ = {"CTP_COORDINATOR": "run-0-0.run:1234", "CTP_PROCESS_COUNT": "4"}
    with pytest.raises(UserError, match="CTP_PROCESS_INDEX"):
        find(None, None, None, environ)
    environ["JOB_COMPLETION_INDEX"] = "3"
    assert find(None, None, None, environ) == Cluster("run-0-0.run:1234", 4, 3)
    environ["CTP_PROCESS_INDEX"] = "2"  # said, and so it counts
    assert find(None, None, None, environ).index == 2
    environ["CTP_PROCESS_COUNT"] = "four"
    with pytest.raises(UserError, match="CTP_PROCESS_COUNT=four: needs a number"):
        find(None, None, None, environ)


def test_tpu_hosts():
    assert find(None, None, None, {"TPU_WORKER_HOSTNAMES": "a,b"}) == Cluster("auto")
    assert find(None, None, None, {"TPU_WORKER_HOSTNAMES": "a"}) is None
    environ = {"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "cpu"}
    assert find(None, None, None, environ) is None
