"""What resources of KServe and KubeRay may hold, of what serving/deploy uses of it.

After the API references of KServe 0.21 (serving.kserve.io/v1alpha1 and v1beta1) and KubeRay 1.6 (ray.io/v1).
KServe's own package needs an older protobuf than bgan, and KubeRay has none with schemas. Pods are Kubernetes'
own definitions.
"""

import importlib.resources
import json

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

TEXT, COUNT, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
PROTOCOL = {"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]}


def kubernetes(name):
    return {"$ref": f"https://kubernetes.io/api/_definitions.json#/$defs/io.k8s.{name}"}


def several(items):
    return {"type": "array", "items": items}


def fields(*required, **properties):
    """An object of these fields and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [*required],
        "properties": properties,
    }


def resource(version, kind, spec):
    metadata = kubernetes("apimachinery.pkg.apis.meta.v1.ObjectMeta")
    all_fields = {"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": metadata, "spec": spec}
    return fields(*all_fields, **all_fields)


RAY_GROUP = {"rayStartParams": TEXTS, "template": kubernetes("api.core.v1.PodTemplateSpec")}
WORKERS = {"groupName": TEXT, "replicas": COUNT, "minReplicas": COUNT, "maxReplicas": COUNT}
FORMAT = fields("name", name=TEXT, version=TEXT, autoSelect=FLAG, priority=COUNT)
SCHEMAS = {
    "ServingRuntime": resource(
        "serving.kserve.io/v1alpha1",
        "ServingRuntime",
        fields(
            "containers",
            annotations=TEXTS,
            labels=TEXTS,
            nodeSelector=TEXTS,
            protocolVersions=several(PROTOCOL),
            supportedModelFormats=several(
                fields("name", name=TEXT, version=TEXT, autoSelect=FLAG, priority=COUNT)
            ),
            containers=several(kubernetes("api.core.v1.Container")),
            volumes=several(kubernetes("api.core.v1.Volume")),
        ),
    ),
    "InferenceService": resource(
        "serving.kserve.io/v1beta1",
        "InferenceService",
        fields(
            "predictor",
            predictor=fields(
                "model",
                minReplicas=COUNT,
                maxReplicas=COUNT,
                enableServiceLinks=FLAG,
                automountServiceAccountToken=FLAG,
                serviceAccountName=TEXT,
                terminationGracePeriodSeconds=COUNT,
                nodeSelector=TEXTS,
                model=fields(
                    "modelFormat",
                    modelFormat=fields("name", name=TEXT, version=TEXT),
                    protocolVersion=PROTOCOL,
                    runtime=TEXT,
                    storageUri=TEXT,
                    env=several(kubernetes("api.core.v1.EnvVar")),
                    resources=kubernetes("api.core.v1.ResourceRequirements"),
                ),
            ),
        ),
    ),
    "RayJob": resource(
        "ray.io/v1",
        "RayJob",
        fields(
            "entrypoint",
            "rayClusterSpec",
            entrypoint=TEXT,
            backoffLimit=COUNT,
            activeDeadlineSeconds=COUNT,
            shutdownAfterJobFinishes=FLAG,
            ttlSecondsAfterFinished=COUNT,
            rayClusterSpec=fields(
                "headGroupSpec",
                rayVersion=TEXT,
                headGroupSpec=fields("template", **RAY_GROUP),
                workerGroupSpecs=several(fields("groupName", "template", **WORKERS, **RAY_GROUP)),
            ),
        ),
    ),
}


def validate(value, release):
    """Raise jsonschema's ValidationError unless it is one of the resources above, with pods of that Kubernetes."""
    folder = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
    text = (folder / f"v{release}.0-local-strict" / "_definitions.json").read_text()
    registry = Resource.from_contents(json.loads(text)) @ Registry()
    Draft202012Validator(SCHEMAS[value["kind"]], registry=registry).validate(value)
