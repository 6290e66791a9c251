"""deploy/kubernetes keeps to the schemas of Kubernetes, and its arguments, settings, ports, paths and metrics are those
of the server. Run by .ci/run after a release build:

    python -m pytest tests/python
"""

import copy
import os
import re
import subprocess
import tomllib
import urllib.request
from pathlib import Path

import grpc
import kubernetes_validate
import pytest
import yaml
from test_container import Image
from test_nginx import TOKEN, free_port, self_signed
from test_server import BINARY, CALL_LIMIT_S, ROOT, Server

KUBERNETES = ROOT / "deploy/kubernetes"
# The oldest that kustomization.yaml promises, and the newest that the validator knows.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
# What a pod has beyond the sum of what it waits for, at least.
RESERVE_S = 5


def documents(file):
    return [document for document in yaml.safe_load_all(file.read_text(encoding="utf-8")) if document]


FILES = [KUBERNETES / name for name in documents(KUBERNETES / "kustomization.yaml")[0]["resources"]]
MANIFESTS = [manifest for file in FILES for manifest in documents(file)]
(ADAPTER,) = documents(KUBERNETES / "monitoring/adapter-rules.yaml")
(MONITOR,) = documents(KUBERNETES / "monitoring/service-monitor.yaml")


def of_kind(kind):
    return [manifest for manifest in MANIFESTS if manifest["kind"] == kind]


(DEPLOYMENT,) = of_kind("Deployment")
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
PROBES = ["startupProbe", "readinessProbe", "livenessProbe"]


def validate(manifest, version):
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda found: f"{found['kind']}-{found['metadata']['name']}")
def test_manifests_keep_to_the_schema(manifest, version):
    validate(manifest, version)


def set_at(path, value):
    def edit(manifest):
        *parents, last = path
        for key in parents:
            manifest = manifest[key]
        manifest[last] = value

    return edit


@pytest.mark.parametrize(
    ("kind", "edit"),
    [
        ("Deployment", set_at(["spec", "template", "spec", "terminationGracePeriod"], 50)),
        ("Deployment", set_at(["spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"], "grpc")),
        ("Deployment", lambda manifest: manifest["spec"].pop("selector")),
        ("HorizontalPodAutoscaler", lambda manifest: manifest["spec"].pop("maxReplicas")),
        ("PodDisruptionBudget", set_at(["spec", "maxUnavailble"], 1)),
        ("Service", set_at(["kind"], "Servis")),
    ],
)
def test_the_schemas_refuse_what_is_wrong(kind, edit):
    broken = copy.deepcopy(of_kind(kind)[0])
    edit(broken)
    with pytest.raises((kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError)):
        validate(broken, VERSIONS[0])


def test_every_manifest_is_in_the_kustomization():
    for folder in [KUBERNETES, KUBERNETES / "monitoring"]:
        (kustomization,) = documents(folder / "kustomization.yaml")
        named = {folder / name for name in kustomization["resources"]} | {folder / "kustomization.yaml"}
        # The rules are for prometheus-adapter, and not for the cluster.
        assert set(folder.glob("*.yaml")) - named <= {folder / "adapter-rules.yaml"}
        assert all(file.is_file() for file in named)
    assert CONTAINER["image"] in {image["name"] for image in documents(KUBERNETES / "kustomization.yaml")[0]["images"]}


def test_selectors_name_the_pods():
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"].items()
    selectors = [service["spec"]["selector"] for service in of_kind("Service")]
    selectors += [manifest["spec"]["selector"]["matchLabels"] for manifest in of_kind("PodDisruptionBudget")]
    selectors += [manifest["spec"]["podSelector"]["matchLabels"] for manifest in of_kind("NetworkPolicy")]
    selectors += [spread["labelSelector"]["matchLabels"] for spread in POD["topologySpreadConstraints"]]
    selectors.append(DEPLOYMENT["spec"]["selector"]["matchLabels"])
    assert len(selectors) == 7
    assert all(selector and selector.items() <= labels for selector in selectors)
    (autoscaler,) = of_kind("HorizontalPodAutoscaler")
    target = autoscaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (DEPLOYMENT["kind"], DEPLOYMENT["metadata"]["name"])
    monitored = [
        service
        for service in of_kind("Service")
        if MONITOR["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    ]
    assert [service["metadata"]["name"] for service in monitored] == ["tasnif-headless"]
    ports = {port["name"] for port in monitored[0]["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in MONITOR["spec"]["endpoints"]} <= ports


def test_ports_that_are_named_are_the_containers():
    named = {CONTAINER[probe]["httpGet"]["port"] for probe in PROBES}
    for policy in of_kind("NetworkPolicy"):
        named |= {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    for service in of_kind("Service"):
        named |= {port["targetPort"] for port in service["spec"]["ports"]}
        assert all(PORTS[port["name"]] == port["port"] for port in service["spec"]["ports"])
    assert named == set(PORTS)


class Mounted:
    """The container's command line and variables, with what the pod mounts in a directory of this machine."""

    def __init__(self, directory, config=lambda text: text):
        self.directory = directory
        self.certificate = self_signed(directory)
        secrets = {
            "tasnif-tls": {name: (directory / name).read_text() for name in ["tls.crt", "tls.key"]},
            "tasnif-tokens": {"tokens": f"newsroom {TOKEN}\n"},
        }
        configs = {manifest["metadata"]["name"]: manifest["data"] for manifest in of_kind("ConfigMap")}
        volumes = {}
        for volume in POD["volumes"]:
            map_name, secret_name = volume.get("configMap", {}).get("name"), volume.get("secret", {}).get("secretName")
            volumes[volume["name"]] = configs[map_name] if map_name else secrets[secret_name]
        self.paths = [mount["mountPath"] for mount in CONTAINER["volumeMounts"]]
        for mount in CONTAINER["volumeMounts"]:
            place = Path(self.here(mount["mountPath"]))
            place.mkdir(parents=True)
            for name, text in volumes[mount["name"]].items():
                (place / name).write_text(self.here(config(text)), encoding="utf-8")
        self.arguments = [self.here(argument) for argument in CONTAINER["args"]]
        variables = {variable["name"]: variable["value"] for variable in CONTAINER.get("env", [])}
        self.environment = {**os.environ, **Image().envs, **variables}

    def here(self, text):
        for path in self.paths:
            text = text.replace(path, str(self.directory / "root") + path)
        return text

    def check(self, *arguments):
        command = [str(BINARY), *self.arguments, *arguments, "--check"]
        return subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True)


def seconds(text):
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|s|m|h)\b", text))


def test_the_server_takes_its_arguments_and_settings(tmp_path):
    checked = Mounted(tmp_path).check()
    assert checked.returncode == 0, checked.stderr
    assert "is meant?" not in checked.stderr
    settings = tomllib.loads(checked.stdout)
    ports = {"grpc": settings["server"]["listen"], "monitoring": settings["monitoring"]["listen"]}
    assert ports == {name: f"0.0.0.0:{port}" for name, port in PORTS.items()}
    # The probes are plain HTTP because the server itself is not.
    assert settings["server"]["tls"]["cert"] and settings["server"]["auth"]["tokens_file"]
    drain_s = seconds(settings["server"]["drain_timeout"]) + seconds(settings["tracing"]["flush_timeout"])
    stop_s = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] >= stop_s + drain_s + RESERVE_S
    (autoscaler,) = of_kind("HorizontalPodAutoscaler")
    target = autoscaler["spec"]["metrics"][0]["pods"]["target"]["averageValue"]
    assert 0 < int(target.replace("k", "000")) < settings["engine"]["max_queued_tokens"] / 4


def test_a_setting_that_does_not_exist_is_seen(tmp_path):
    checked = Mounted(tmp_path, lambda text: text.replace("drain_timeout", "drain_timeouts")).check()
    assert checked.returncode == 2 and "server.drain_timeout" in checked.stderr


def test_probes_and_metrics_are_answered(tmp_path):
    mounted = Mounted(tmp_path)
    port = free_port()
    credentials = grpc.ssl_channel_credentials(mounted.certificate)
    server = Server(
        *mounted.arguments[1:],
        *["--metrics-listen", f"127.0.0.1:{port}", "--set", "log.format=text"],
        credentials=credentials,
        options=[("grpc.ssl_target_name_override", "tasnif.example")],
    )

    def get(path):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=CALL_LIMIT_S) as reply:
            assert reply.status == 200
            return reply.read().decode()

    try:
        for probe in PROBES:
            get(CONTAINER[probe]["httpGet"]["path"])
        (endpoint,) = MONITOR["spec"]["endpoints"]
        metrics = get(endpoint["path"])
    finally:
        server.channel.close()
        assert server.stop() == 0
    (autoscaler,) = of_kind("HorizontalPodAutoscaler")
    wanted = {metric["pods"]["metric"]["name"] for metric in autoscaler["spec"]["metrics"]}
    exported = {rule["seriesQuery"].split("{")[0] for rule in ADAPTER["rules"]["custom"]}
    assert wanted <= exported
    assert all(re.search(rf"^{name}{{.* \d", metrics, re.MULTILINE) for name in exported)


def test_the_adapters_rule_is_by_namespace_and_pod():
    (rule,) = ADAPTER["rules"]["custom"]
    labels = set(re.findall(r'(\w+)!=""', rule["seriesQuery"]))
    assert labels == {"namespace", "pod"} == set(rule["resources"]["overrides"])
    assert all(f"<<.{name}>>" in rule["metricsQuery"] for name in ["Series", "LabelMatchers", "GroupBy"])


def test_the_image_is_as_the_manifests_take_it():
    container = Image()
    security = POD["securityContext"]
    assert container.user == (security["runAsUser"], security["runAsGroup"])
    assert container.ports == set(PORTS.values())
    # The manifest's arguments take the place of CMD and keep the entry point.
    assert "command" not in CONTAINER and container.command[0] == CONTAINER["args"][0]
