"""The Kubernetes files are valid, and repeated numbers agree."""

import copy
import math
import re
import sys

import jsonschema
import kubernetes_validate
import pytest
import yaml

from ctp_jax import cli, main
from ctp_jax.train.distributed import cluster
from tests.launch import jobset_schema, starting

JOBSETS = ("jobset_gpu.yaml", "jobset_tpu.yaml")
# Of Kubernetes: podFailurePolicy is stable since the first, the second is recent.
VERSIONS = ("1.31", "1.35")


def read(name):
    (document,) = yaml.safe_load_all((starting.LAUNCH / name).read_text())
    return document


def check(jobset):
    """Raises ValidationError for what is not a JobSet."""
    jsonschema.validate(jobset, jobset_schema.JOBSET)
    for job in jobset["spec"]["replicatedJobs"]:
        about = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
        for version in VERSIONS:
            kubernetes_validate.validate({**about, **job["template"]}, version, True)


@pytest.fixture(params=JOBSETS)
def jobset(request):
    return read(request.param)


def job_of(jobset):
    (job,) = jobset["spec"]["replicatedJobs"]
    return job["template"]["spec"]


def container_of(jobset):
    (container,) = job_of(jobset)["template"]["spec"]["containers"]
    return container


def test_they_are_valid(jobset):
    check(jobset)


def change(jobset, path, value):
    """A copy with one thing changed, as `a.b.0.c` names it."""
    changed = copy.deepcopy(jobset)
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    place = changed
    for part in parents:
        place = place[part]
    place[last] = value
    return changed


JOB = "spec.replicatedJobs.0.template.spec"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("apiVersion", "jobset.x-k8s.io/v1alpha1"),
        ("spec.restarts", 3),
        ("spec.failurePolicy.rules.0.action", "Fail"),
        ("spec.failurePolicy.rules.0.onJobFailureReasons", ["ExitCode"]),
        ("spec.network.enableDnsHostnames", True),
        (f"{JOB}.backoffLimits", 0),
        (f"{JOB}.podFailurePolicy.rules.0.onExitCodes.operator", 2),
        (f"{JOB}.template.spec.terminationGracePeriod", 300),
        (f"{JOB}.template.spec.containers.0.env.0.value", 2),
        (f"{JOB}.template.spec.containers.0.resources.limit", {}),
    ],
)
def test_the_check_finds_mistakes(jobset, path, value):
    with pytest.raises(jsonschema.ValidationError):
        check(change(jobset, path, value))


def test_the_volume():
    volume = read("shared_volume.yaml")
    for version in VERSIONS:
        kubernetes_validate.validate(volume, version, True)
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]
    # As its comment says, a JobSet uses it.
    text = (starting.LAUNCH / "shared_volume.yaml").read_text()
    lines = re.findall(r"#   (volume\w+: .*\])", text)
    mounts, volumes = (next(iter(yaml.safe_load(line).values())) for line in lines)
    (claim,) = (each["persistentVolumeClaim"]["claimName"] for each in volumes)
    assert claim == volume["metadata"]["name"]
    for name in JOBSETS:
        jobset = read(name)
        pod, container = job_of(jobset)["template"]["spec"], container_of(jobset)
        pod["volumes"] = [*pod.get("volumes", []), *volumes]
        container["volumeMounts"] = [*container.get("volumeMounts", []), *mounts]
        check(jobset)


def test_what_is_restarted_and_what_is_not(jobset):
    policy = jobset["spec"]["failurePolicy"]
    (rule,) = policy["rules"]
    assert rule["action"] == "FailJobSet" and policy["maxRestarts"] > 0
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    job = job_of(jobset)
    assert job["backoffLimit"] == 0 and job["completionMode"] == "Indexed"
    # Kubernetes refuses podFailurePolicy with anything else.
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    name = container_of(jobset)["name"]
    rules = job["podFailurePolicy"]["rules"]
    actions = {}
    for rule in rules:
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["containerName"] == name
            assert rule["onExitCodes"]["operator"] == "In"
            actions |= dict.fromkeys(rule["onExitCodes"]["values"], rule["action"])
        else:
            (condition,) = rule["onPodConditions"]
            actions[condition["type"]] = rule["action"]
    assert actions == {2: "FailJob", 75: "Count", "DisruptionTarget": "Count"}


def test_what_is_mounted_is_there_and_used(jobset):
    pod = job_of(jobset)["template"]["spec"]
    volumes = [volume["name"] for volume in pod.get("volumes", [])]
    mounts = [mount["name"] for mount in container_of(jobset).get("volumeMounts", [])]
    assert sorted(mounts) == sorted(volumes)
    environ = {each["name"]: each["value"] for each in container_of(jobset)["env"]}
    assert environ["TFDS_DATA_DIR"] == "gs://BUCKET/data"
    assert pod["serviceAccountName"]


def parse(jobset, index, monkeypatch):
    """Parses the command line of a pod into the flags of `ctp_jax.main`."""
    environ = {each["name"]: each["value"] for each in container_of(jobset)["env"]}
    environ["JOB_COMPLETION_INDEX"] = str(index)  # by `completionMode: Indexed`
    arguments = [
        re.sub(r"\$\((\w+)\)", lambda match: environ[match[1]], argument)
        for argument in container_of(jobset)["args"]
    ]
    main.FLAGS.unparse_flags()
    monkeypatch.chdir(starting.ROOT)
    monkeypatch.setattr(sys, "argv", ["main", *arguments])
    cli.parse(sys.argv, main.FLAGS, "")


def test_the_command_is_one(jobset, monkeypatch):
    parse(jobset, 0, monkeypatch)
    assert main.WORKDIR.value == "gs://BUCKET/runs/k400"
    # Or a preempted run would count as finished.
    assert main.STOPPED.value == 75


def test_gpu_processes_meet(monkeypatch):
    jobset = read("jobset_gpu.yaml")
    job, container = job_of(jobset), container_of(jobset)
    count = job["parallelism"]
    assert job["completions"] == count
    for index in range(count):
        parse(jobset, index, monkeypatch)
        found = cluster.find(main.COORDINATOR.value, main.COUNT.value, main.INDEX.value)
        assert (found.process_count, found.process_index) == (count, index)
    # Pod 0 of replica 0, by the name that JobSet gives it.
    name, (replicated,) = jobset["metadata"]["name"], jobset["spec"]["replicatedJobs"]
    host = f"{name}-{replicated['name']}-0-0.{name}"
    assert re.fullmatch(rf"{re.escape(host)}:\d+", found.coordinator)
    assert jobset["spec"]["network"]["enableDNSHostnames"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert "/dev/shm" in mounts


def test_tpu_pods_are_the_hosts_of_a_slice():
    jobset = read("jobset_tpu.yaml")
    job, container = job_of(jobset), container_of(jobset)
    selector = job["template"]["spec"]["nodeSelector"]
    topology = selector["cloud.google.com/gke-tpu-topology"].split("x")
    chips = container["resources"]["limits"]["google.com/tpu"]
    hosts = math.prod(map(int, topology)) // chips
    assert job["parallelism"] == job["completions"] == hosts
    # JAX is left to decide who is who, by the variables that GKE gives to TPU pods.
    assert not any("process" in argument for argument in container["args"])
    assert container["env"][0]["value"].startswith("gs://")
