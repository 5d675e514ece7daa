"""The parts of pods in KServe's kinds: containers and what stands around them.

Fields that this backend acts on are declared here in full; the others are Kubernetes' own types, refused by name.
"""

from __future__ import annotations

from ondol.formats.resource.states import HONOURED, State, cluster, no_effect, refused
from ondol.formats.resource.types import (
    Field,
    Flag,
    IntOrString,
    ListOf,
    MapOf,
    Object,
    Quantity,
    Text,
    Whole,
    every,
    one_of,
)

CLUSTER = cluster()

POD_FIELDS = (
    "activeDeadlineSeconds affinity automountServiceAccountToken dnsConfig dnsPolicy enableServiceLinks hostAliases "
    "hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride imagePullSecrets initContainers nodeName "
    "nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates resourceClaims restartPolicy "
    "runtimeClassName schedulerName schedulingGates securityContext serviceAccount serviceAccountName "
    "setHostnameAsFQDN shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations "
    "topologySpreadConstraints volumes resources"
)
"""Fields of a PodSpec beside its containers."""

KEY_REF = Object(
    {
        "name": Field(Text(), about="Name of the Secret or ConfigMap."),
        "key": Field(Text(), required=True, about="The key in it."),
        "optional": Field(Flag(), about="Whether it may be absent."),
    }
)


def _value_from(state: State) -> Object:
    return Object(
        {
            "secretKeyRef": Field(KEY_REF, state, "A key of a Secret."),
            "configMapKeyRef": Field(KEY_REF, state, "A key of a ConfigMap."),
            **every("fieldRef fileKeyRef resourceFieldRef", cluster("it asks about the pod"), "V1EnvVarSource"),
        }
    )


SOURCE_REF = Object({"name": Field(Text()), "optional": Field(Flag())})
ENV_FROM = Object(
    {
        "prefix": Field(Text(), about="Put before every name."),
        "secretRef": Field(SOURCE_REF, about="All keys of a Secret."),
        "configMapRef": Field(SOURCE_REF, about="All keys of a ConfigMap."),
    }
)


def env(name: Text | None = None, referred: State = HONOURED) -> ListOf:
    """Environment variables; `name` says which names are honoured, `referred` whether Secrets and ConfigMaps are."""
    variable = Object(
        {
            "name": Field(name or Text(), required=True, about="The variable."),
            "value": Field(Text(), about="Its value."),
            "valueFrom": Field(_value_from(referred), about="Where its value is, instead of `value`."),
        }
    )
    return ListOf(variable, keys=("name",))


_AMOUNTS = MapOf(
    Quantity(),
    keys=dict.fromkeys(("cpu", "memory", "ephemeral-storage"), HONOURED),
    other=refused("it is not a resource that this machine can give"),
)
RESOURCES = Object(
    {
        "requests": Field(_AMOUNTS, about="What is set aside."),
        "limits": Field(_AMOUNTS, about="The most that may be used."),
        "claims": Field(
            ListOf(Object({"name": Field(Text(), required=True), "request": Field(Text())}), ("name",)), CLUSTER
        ),
    }
)
PORT = Object(
    {
        "containerPort": Field(Whole(1, 65535), required=True, about="The port the server listens on."),
        "name": Field(Text(), about="`h2c` is gRPC, anything else HTTP, as in KServe."),
        "protocol": Field(one_of("TCP", "UDP", "SCTP"), default="TCP"),
        "hostPort": Field(Whole(1, 65535), CLUSTER),
        "hostIP": Field(Text(), CLUSTER),
    }
)
HTTP_GET = Object(
    {
        "path": Field(Text(), about="The path that answers 200 when the server is ready."),
        "port": Field(IntOrString(), about="The port, or its name."),
        "scheme": Field(one_of("HTTP", "HTTPS")),
        "host": Field(Text(), CLUSTER),
        "httpHeaders": Field(
            ListOf(Object({"name": Field(Text(), required=True), "value": Field(Text(), required=True)})), CLUSTER
        ),
    }
)
PROBE = Object(
    {
        "httpGet": Field(HTTP_GET, about="Ready when a GET of this succeeds."),
        **{
            name: Field(Whole(0), no_effect("the server is asked until it is ready, often and without a fixed pace"))
            for name in (
                "failureThreshold",
                "initialDelaySeconds",
                "periodSeconds",
                "successThreshold",
                "timeoutSeconds",
            )
        },
        **every("exec grpc tcpSocket terminationGracePeriodSeconds", CLUSTER, "V1Probe"),
    }
)


def container(**own: Field) -> dict[str, Field]:
    """Return a container's fields: what is not given is of a cluster only."""
    known = {
        **every(
            "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe "
            "resizePolicy resources restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce "
            "terminationMessagePath terminationMessagePolicy tty volumeDevices volumeMounts workingDir",
            CLUSTER,
            "V1Container",
        ),
    }
    return {**known, **own}


def custom_container(**own: Field) -> Object:
    """A container that is a program of the user's own, started as a process of its own."""
    fields = container(
        name=Field(Text(), required=True, about="`kserve-container`, or `transformer-container` beside it."),
        image=Field(Text(), about="Runs only where a rule says what it means here."),
        command=Field(ListOf(Text()), about="The program."),
        args=Field(ListOf(Text()), about="Its arguments."),
        env=Field(env(), about="Its environment."),
        envFrom=Field(ListOf(ENV_FROM), about="More of its environment."),
        ports=Field(ListOf(PORT, keys=("containerPort", "protocol")), about="Where it listens."),
        resources=Field(RESOURCES, about="What it may use."),
        readinessProbe=Field(PROBE, about="When it is ready."),
        livenessProbe=Field(PROBE, no_effect("a server that ends is started again; it is not asked whether it lives")),
        startupProbe=Field(PROBE, no_effect("the readiness probe is asked from the start")),
        workingDir=Field(Text(), about="Where it starts."),
        imagePullPolicy=Field(one_of("Always", "IfNotPresent", "Never"), no_effect("no image is pulled")),
        terminationMessagePath=Field(Text(), no_effect("the log says why a process ended")),
        terminationMessagePolicy=Field(
            one_of("File", "FallbackToLogsOnError"), no_effect("the log says why a process ended")
        ),
    )
    return Object({**fields, **own})


def pod(**own: Field) -> dict[str, Field]:
    """Return a PodSpec's fields; what is not given is of a cluster only."""
    return {**every(POD_FIELDS, CLUSTER, "V1PodSpec"), **own}
