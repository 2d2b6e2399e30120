"""The chart's own keys and their types, for tools/chart_docs.py. What Kubernetes defines is left to Kubernetes to check."""

TEXT = {"type": "string"}
BOOL = {"type": "boolean"}
OBJECT = {"type": "object"}
LIST = {"type": "array"}
OBJECTS = {"type": "array", "items": OBJECT}
TEXTS = {"type": "array", "items": TEXT}
NUMBER = {"type": "number", "minimum": 0}
COUNT = {"type": "integer", "minimum": 0}
PERCENT = {"type": ["integer", "null"], "minimum": 1}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
NODE_PORT = {"type": ["integer", "null"], "minimum": 1, "maximum": 65535}
LABELS = {"type": "object", "additionalProperties": TEXT}
QUANTITY = {"type": ["string", "integer"], "pattern": r"^([0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?)?$"}
AMOUNT = {"type": ["integer", "string", "null"], "minimum": 0, "pattern": "^[0-9]{1,3}%$"}
PULL = {"type": "string", "enum": ["Always", "IfNotPresent", "Never"]}
SECRETS = {"type": "array", "items": {"anyOf": [TEXT, {"type": "object", "required": ["name"], "properties": {"name": TEXT}}]}}
SECONDS = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))*$"}
DIGEST = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}


def group(**properties: dict) -> dict:
    """Keys of the chart's own: others are refused."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def one_of(*words: str) -> dict:
    return {"type": "string", "enum": list(words)}


def route() -> dict:
    return group(enabled=BOOL, annotations=LABELS, parentRefs=OBJECTS, hostnames=TEXTS, rules=OBJECTS)


ACCESS_MODES = {
    "type": "array",
    "items": one_of("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"),
    "minItems": 1,
}

KEYS = {
    "existingConfigmap": TEXT,
    "modelStore": group(
        mountPath={"type": "string", "pattern": "^/."},
        subPath=TEXT,
        readOnly=BOOL,
        existingClaim=TEXT,
        persistentVolumeClaim=group(
            create=BOOL,
            accessModes=ACCESS_MODES,
            storageClass=TEXT,
            size=QUANTITY,
            annotations=LABELS,
            selector=OBJECT,
        ),
        image=group(reference=TEXT, pullPolicy=PULL),
        fetch=group(image=TEXT, command=TEXTS, args=TEXTS, env=OBJECTS, envFrom=OBJECTS, resources=OBJECT, sizeLimit=QUANTITY),
        volume={"type": "object", "maxProperties": 1},
    ),
    "state": group(
        sqlite=group(
            existingClaim=TEXT,
            persistentVolumeClaim=group(
                create=BOOL, accessModes=ACCESS_MODES, storageClass=TEXT, size=QUANTITY, annotations=LABELS
            ),
        ),
        postgres=group(existingSecret=TEXT, key={"type": "string", "pattern": "^[-._a-zA-Z0-9]+$"}),
    ),
    "listenHost": {"type": "string", "pattern": r"^([0-9.]+|\[[0-9a-fA-F:.]+\])$"},
    "containerPorts": group(http=PORT, grpc=PORT, ops=PORT),
    "global": {"type": "object", "properties": {"imageRegistry": TEXT, "imagePullSecrets": SECRETS}},
    "image": group(registry=TEXT, repository={"type": "string", "minLength": 1}, pullPolicy=PULL, tag=TEXT, digest=DIGEST),
    "imagePullSecrets": SECRETS,
    "gpu": group(
        enabled=BOOL,
        resource={"type": "string", "minLength": 1},
        count={"type": "integer", "minimum": 1},
        tagSuffix=TEXT,
        nodeSelector=LABELS,
        tolerations=OBJECTS,
        runtimeClassName=TEXT,
    ),
    "nameOverride": TEXT,
    "fullnameOverride": TEXT,
    "commonLabels": LABELS,
    "commonAnnotations": LABELS,
    "replicaCount": COUNT,
    "strategy": {"type": "object", "properties": {"type": one_of("RollingUpdate", "Recreate"), "rollingUpdate": OBJECT}},
    "minReadySeconds": COUNT,
    "revisionHistoryLimit": COUNT,
    "serviceAccount": group(create=BOOL, automount=BOOL, annotations=LABELS, name=TEXT),
    "podAnnotations": LABELS,
    "podLabels": LABELS,
    "podSecurityContext": OBJECT,
    "securityContext": OBJECT,
    "resources": {
        "type": "object",
        "additionalProperties": False,
        "properties": {"limits": OBJECT, "requests": OBJECT, "claims": OBJECTS},
    },
    "livenessProbe": OBJECT,
    "readinessProbe": OBJECT,
    "startupProbe": OBJECT,
    "customLivenessProbe": OBJECT,
    "customReadinessProbe": OBJECT,
    "customStartupProbe": OBJECT,
    "terminationGracePeriodSeconds": {"type": ["integer", "null"], "minimum": 1},
    "lifecycleHooks": OBJECT,
    "nodeSelector": LABELS,
    "tolerations": OBJECTS,
    "affinity": OBJECT,
    "topologySpreadConstraints": OBJECTS,
    "priorityClassName": TEXT,
    "runtimeClassName": TEXT,
    "schedulerName": TEXT,
    "hostAliases": OBJECTS,
    "dnsPolicy": one_of("", "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "dnsConfig": OBJECT,
    "command": TEXTS,
    "args": TEXTS,
    "extraArgs": TEXTS,
    "extraEnvVars": {"type": "array", "items": {"type": "object", "required": ["name"]}},
    "extraEnvVarsCM": TEXT,
    "extraEnvVarsSecret": TEXT,
    "existingSecret": TEXT,
    "volumes": OBJECTS,
    "volumeMounts": OBJECTS,
    "extraVolumes": OBJECTS,
    "extraVolumeMounts": OBJECTS,
    "tmpSizeLimit": QUANTITY,
    "sidecars": OBJECTS,
    "initContainers": OBJECTS,
    "extraDeploy": {"type": "array", "items": {"type": ["string", "object"]}},
    "service": group(
        type=one_of("ClusterIP", "NodePort", "LoadBalancer"),
        port=PORT,
        grpcPort=PORT,
        opsPort=PORT,
        nodePort=NODE_PORT,
        grpcNodePort=NODE_PORT,
        annotations=LABELS,
        labels=LABELS,
        opsAnnotations=LABELS,
        clusterIP=TEXT,
        trafficDistribution=TEXT,
        externalTrafficPolicy=one_of("", "Cluster", "Local"),
        loadBalancerClass=TEXT,
        loadBalancerSourceRanges=TEXTS,
        ipFamilyPolicy=one_of("", "SingleStack", "PreferDualStack", "RequireDualStack"),
    ),
    "ingress": group(
        enabled=BOOL,
        className=TEXT,
        annotations=LABELS,
        hosts={
            "type": "array",
            "items": group(
                host=TEXT,
                paths={
                    "type": "array",
                    "minItems": 1,
                    "items": group(
                        path={"type": "string", "pattern": "^/"},
                        pathType=one_of("Exact", "Prefix", "ImplementationSpecific"),
                        port=one_of("http", "grpc"),
                    ),
                },
            ),
        },
        tls={"type": "array", "items": group(secretName=TEXT, hosts=TEXTS)},
    ),
    "httpRoute": route(),
    "grpcRoute": route(),
    "networkPolicy": group(enabled=BOOL, allowDns=BOOL, extraEgress=OBJECTS, opsFrom=OBJECTS, **{"from": OBJECTS}),
    "autoscaling": group(
        enabled=BOOL,
        minReplicas=COUNT,
        maxReplicas={"type": "integer", "minimum": 1},
        targetCPUUtilizationPercentage=PERCENT,
        targetMemoryUtilizationPercentage=PERCENT,
        podsMetric=group(name=TEXT, averageValue=QUANTITY),
        metrics=OBJECTS,
        behavior=OBJECT,
    ),
    "keda": group(
        enabled=BOOL,
        minReplicaCount=COUNT,
        maxReplicaCount={"type": "integer", "minimum": 1},
        pollingInterval={"type": "integer", "minimum": 1},
        cooldownPeriod=COUNT,
        prometheus=group(
            serverAddress={"type": "string", "pattern": "^https?://"},
            query=TEXT,
            threshold={"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"},
            activationThreshold={"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"},
            authenticationRef=TEXT,
        ),
        triggers=OBJECTS,
        behavior=OBJECT,
    ),
    "podDisruptionBudget": group(
        enabled=BOOL,
        minAvailable=AMOUNT,
        maxUnavailable=AMOUNT,
        unhealthyPodEvictionPolicy=one_of("AlwaysAllow", "IfHealthyBudget"),
    ),
    "serviceMonitor": group(
        enabled=BOOL,
        namespace=TEXT,
        interval=SECONDS,
        scrapeTimeout=SECONDS,
        additionalLabels=LABELS,
        relabelings=OBJECTS,
        metricRelabelings=OBJECTS,
    ),
    "prometheusRule": group(
        enabled=BOOL,
        namespace=TEXT,
        additionalLabels=LABELS,
        sre=BOOL,
        ml=BOOL,
        slo=group(
            errorBudget={"type": "number", "exclusiveMinimum": 0, "maximum": 0.05},
            latencySeconds=NUMBER,
            latencyBudget={"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
        ),
        runbookUrl={"type": "string", "pattern": "^https?://.*/$"},
        disabled=TEXTS,
        extraGroups=OBJECTS,
    ),
    "dashboards": group(enabled=BOOL, namespace=TEXT, labels=LABELS, annotations=LABELS),
    "tests": group(
        enabled=BOOL,
        image=group(repository=TEXT, tag=TEXT, pullPolicy=PULL),
        predict={
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["model", "body"],
                "properties": {"model": TEXT, "body": TEXT},
            },
        },
        resources=OBJECT,
    ),
}
