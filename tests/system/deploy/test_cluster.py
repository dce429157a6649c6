"""What runs on a cluster: manifests are valid and of one whole, and their commands are commands that there are."""

import inspect
import re
import shlex
import tomllib
import urllib.request
from importlib.metadata import version

import jsonschema
import kubernetes_validate
import pytest
from torch.distributed.elastic.rendezvous import dynamic_rendezvous
from torch.distributed.run import get_args_parser

from bgan.clients import SamplingClient
from tests.conftest import ROOT
from tests.kit.servers import server
from tests.system.deploy import custom_resources
from tests.system.deploy.files import (
    CONTAINERFILE,
    KUBERNETES,
    RELEASES,
    image,
    misspelt,
    parsed,
    pod_variables,
    rendered,
    seconds_to_stop,
    settings,
)

KINDS = {"kserve": {"ServingRuntime", "InferenceService"}, "bulk": {"RayJob"}, "training": {"Job", "Service"}}
MISSPELT = {
    "ServingRuntime": ["spec.protocolVersion", "spec.containers.0.readinessProbe.httpGet.pat"],
    "InferenceService": ["spec.predictor.minReplica", "spec.predictor.model.storageURI"],
    "RayJob": ["spec.entryPoint", "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.images"],
    "Job": ["spec.completionsMode", "spec.template.spec.containers.0.commands"],
    "Service": ["spec.publishNotReadyAddress"],
}
RESOURCES = [(folder, kind) for folder, kinds in KINDS.items() for kind in sorted(kinds)]


def documented(folder):
    """The resources of each kustomization of the documentation, over the folder that it names."""
    (folder / "bgan").mkdir()
    (folder / "bgan" / "serving").symlink_to(ROOT / "serving")
    found = {}
    for example in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.S):
        (folder / "kustomization.yaml").write_text(example)
        found[re.search(r"kubernetes/(\w+)", example)[1]] = rendered(folder)
    return found


@pytest.fixture(scope="module", params=["of the files", "of the documentation"])
def resources(request, tmp_path_factory):
    """The resources of each folder, by kind."""
    if request.param == "of the files":
        return {folder: rendered(KUBERNETES / folder) for folder in KINDS}
    return documented(tmp_path_factory.mktemp("documented"))


def images(resource):
    """Every image that it names, wherever it does."""
    if isinstance(resource, dict):
        own = {value for key, value in resource.items() if key == "image"}
        return own.union(*map(images, resource.values()))
    return set().union(*map(images, resource)) if isinstance(resource, list) else set()


def test_a_registry_and_a_namespace_of_ones_own_are_taken_everywhere(tmp_path):
    for folder, found in documented(tmp_path).items():
        assert found.keys() == KINDS[folder]
        for resource in found.values():
            assert resource["metadata"]["namespace"] == "images"
            assert all(image.startswith("registry.example/bgan") for image in images(resource))


def validate(resource, release):
    if resource["kind"] in custom_resources.SCHEMAS:
        custom_resources.validate(resource, release)
    else:
        kubernetes_validate.validate(resource, release, strict=True)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(("folder", "kind"), RESOURCES)
def test_manifests_are_valid_and_misspelt_ones_are_not(resources, folder, kind, release):
    assert resources[folder].keys() == KINDS[folder]
    resource = resources[folder][kind]
    validate(resource, release)
    for place in MISSPELT[kind]:
        with pytest.raises(jsonschema.ValidationError, match=place.split(".")[-1]):
            validate(misspelt(resource, place), release)


def serving_container(runtime):
    (container,) = runtime["spec"]["containers"]
    return container


def probed(container):
    """What the kubelet asks, by its address."""
    probes = (container[kind]["httpGet"] for kind in ("startupProbe", "readinessProbe", "livenessProbe"))
    return {probe["path"]: probe for probe in probes}


def test_kserve_finds_the_runtime_of_the_service_and_in_it_the_protocol(resources):
    runtime, service = resources["kserve"]["ServingRuntime"], resources["kserve"]["InferenceService"]
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in [one["name"] for one in runtime["spec"]["supportedModelFormats"]]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert serving_container(runtime)["name"] == "kserve-container"  # the name that KServe asks for
    assert serving_container(runtime)["image"].endswith(f"bgan:{version('bgan')}")


def test_a_server_of_kserve_listens_where_it_is_asked_and_has_time_to_stop(resources):
    runtime, service = resources["kserve"]["ServingRuntime"], resources["kserve"]["InferenceService"]
    container = serving_container(runtime)
    found = settings(pod_variables(container))
    assert [port["containerPort"] for port in container["ports"]] == [found["http_port"], found["port"]]
    assert runtime["spec"]["annotations"]["prometheus.io/port"] == str(found["http_port"])
    assert {probe["port"] for probe in probed(container).values()} == {found["http_port"]}
    assert found["models"] == "/mnt/models"  # where KServe puts them
    assert service["spec"]["predictor"]["terminationGracePeriodSeconds"] > seconds_to_stop(found)
    assert str(container["securityContext"]["runAsUser"]) == image()["USER"].split(":")[0]


def test_a_server_as_kserve_starts_it_answers_its_probes_and_both_protocols(models):
    runtime = rendered(KUBERNETES / "kserve")["ServingRuntime"]
    container = serving_container(runtime)
    variables = pod_variables(container) | {"BGAN_HTTP_PORT": "0", "BGAN_MODELS": str(models)}
    with server(None, env=variables) as process:
        for path in (
            *probed(container),
            runtime["spec"]["annotations"]["prometheus.io/path"],
            "/v2/models/mlp-dbn",
        ):
            with urllib.request.urlopen(process.http + path, timeout=60) as answer:
                assert answer.status == 200
        with SamplingClient(process.target) as client:
            assert {model.name for model in client.list_models()} >= {"mlp-dbn"}


def ray_pods(job):
    """The head's pod and the workers', of which each has one container."""
    cluster = job["spec"]["rayClusterSpec"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_the_nodes_of_ray_are_alike_and_write_where_they_may(resources):
    job = resources["bulk"]["RayJob"]
    head, *workers = ray_pods(job)
    assert workers == [head]
    (container,) = head["spec"]["containers"]
    assert container["image"].endswith(f"bgan-ray:{version('bgan')}")
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]
    assert job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_entrypoint_of_ray_is_a_command_that_there_is(resources):
    program, command, *arguments = shlex.split(resources["bulk"]["RayJob"]["spec"]["entrypoint"])
    assert program == "bgan"
    found = parsed(command, arguments)
    assert found["ray"] == "auto"  # the cluster that runs it


def torchrun(job):
    """What torchrun makes of the job's command line."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["torchrun"]
    return get_args_parser().parse_args(container["args"])


def test_the_pods_of_a_training_meet_where_the_first_one_is(resources):
    job, service = resources["training"]["Job"], resources["training"]["Service"]
    pod, options = job["spec"]["template"], torchrun(job)
    name = service["metadata"]["name"]
    host, _, port = options.rdzv_endpoint.partition(":")
    assert job["spec"]["completionMode"] == "Indexed"
    assert host == f"{job['metadata']['name']}-0.{name}"
    assert pod["spec"]["subdomain"] == name
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["spec"]["publishNotReadyAddresses"]  # they meet before they are ready
    assert [one["port"] for one in service["spec"]["ports"]] == [int(port)]
    assert options.rdzv_backend == "c10d"


def test_the_processes_of_a_training_share_its_shards(resources):
    job, options = resources["training"]["Job"], torchrun(resources["training"]["Job"])
    assert int(options.nnodes) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert (options.module, options.training_script) == (True, "bgan")
    command, *arguments = options.training_script_args
    found = parsed(command, arguments)
    assert found["shards"] % (int(options.nnodes) * int(options.nproc_per_node)) == 0


def test_a_pod_of_a_training_that_is_replaced_is_found_again(resources):
    """torchrun's agents of the other pods keep the port of one that is gone, unless they are told (torch 2.13)."""
    job = resources["training"]["Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"
    assert {"name": "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "value": "1"} in container["env"]
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE" in inspect.getsource(dynamic_rendezvous)


def test_images_are_built_with_extras_that_there_are():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pages = [ROOT / "docs" / page for page in ("cluster.md", "deploying.md")]
    text = "".join(path.read_text() for path in (CONTAINERFILE, *pages))
    named = {extra for names in re.findall(r"EXTRAS=([\w,]+)", text) for extra in names.split(",")}
    assert named >= {"serve", "train"}
    assert named <= project["optional-dependencies"].keys()


def pods(resources):
    """Every pod's spec, or what stands for it."""
    return {
        "KServe": resources["kserve"]["ServingRuntime"]["spec"],
        "Ray": ray_pods(resources["bulk"]["RayJob"])[0]["spec"],
        "training": resources["training"]["Job"]["spec"]["template"]["spec"],
    }


def test_pods_may_do_nothing_that_they_need_not(resources):
    user = int(image()["USER"].split(":")[0])
    for name, pod in pods(resources).items():
        (container,) = pod["containers"]
        allowed = {**pod.get("securityContext", {}), **container["securityContext"]}
        assert allowed["runAsNonRoot"], name
        assert allowed["runAsUser"] == user, name
        assert allowed["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not allowed["allowPrivilegeEscalation"], name
        assert allowed["capabilities"] == {"drop": ["ALL"]}, name
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        assert {mount["name"] for mount in container.get("volumeMounts", [])} == volumes, name
    service = resources["kserve"]["InferenceService"]["spec"]["predictor"]
    for pod in (service, pods(resources)["Ray"], pods(resources)["training"]):
        assert not pod["enableServiceLinks"]  # they would set variables that begin with BGAN_
        assert not pod["automountServiceAccountToken"]


def test_the_commands_of_the_documentation_name_what_there_is(resources):
    text = (ROOT / "docs" / "cluster.md").read_text()
    commands = [line for line in text.splitlines() if line.startswith("    kubectl --namespace images ")]
    known = {
        f"{kind.lower()}/{resource['metadata']['name']}"
        for folder in resources.values()
        for kind, resource in folder.items()
    }
    known.add(f"deployment/{resources['kserve']['InferenceService']['metadata']['name']}-predictor")  # KServe's
    named = {name for line in commands for name in re.findall(r"\w+/bgan[\w-]*(?=$| )", line)}
    assert len(named) == 3
    assert named <= known
    labels = resources["training"]["Job"]["spec"]["template"]["metadata"]["labels"]
    labels |= {
        "job-name": resources["bulk"]["RayJob"]["metadata"]["name"]
    }  # KubeRay's submitter is a job of that name
    selectors = dict(re.findall(r"--selector (\S+)=(\S+)", "\n".join(commands)))
    assert len(selectors) == 2
    assert selectors.items() <= labels.items()
