{{/* Names and labels, as every chart has them. */}}
{{- define "sluicegate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Cut to 56 characters, so that the names of the objects that are made from it fit into 63. */}}
{{- define "sluicegate.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 56 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 56 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 56 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "sluicegate.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "sluicegate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sluicegate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sluicegate.labels" -}}
helm.sh/chart: {{ include "sluicegate.chart" . }}
{{ include "sluicegate.selectorLabels" . }}
{{- if .Chart.AppVersion }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The labels and those of the object's own, which win. Takes (dict "root" $ "own" ...). */}}
{{- define "sluicegate.labelsWith" -}}
{{- merge (dict) .own (include "sluicegate.labels" .root | fromYaml) | toYaml }}
{{- end }}

{{/* Annotations of an object below its metadata: the common ones and its own. Takes (dict "root" $ "own" ...). */}}
{{- define "sluicegate.annotations" -}}
{{- with merge (dict) (.own | default dict) .root.Values.commonAnnotations }}
{{ print "annotations:" | indent 2 }}
{{ toYaml . | indent 4 }}
{{- end }}
{{- end }}

{{- define "sluicegate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "sluicegate.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* "true" where pods get a GPU. */}}
{{- define "sluicegate.gpu" -}}
{{- $wanted := .Values.gpu.enabled }}
{{- range .Values.models }}
{{- $wanted = or $wanted (hasPrefix "cuda" (.device | default "auto")) }}
{{- end }}
{{- if $wanted }}true{{ end }}
{{- end }}

{{- define "sluicegate.image" -}}
{{- $image := .Values.image }}
{{- $registry := .Values.global.imageRegistry | default $image.registry }}
{{- $tag := $image.tag | default .Chart.AppVersion }}
{{- if include "sluicegate.gpu" . }}{{ $tag = printf "%s%s" $tag .Values.gpu.tagSuffix }}{{ end }}
{{- if $registry }}{{ $registry }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end }}

{{/* Names of pull secrets, as a list of objects. */}}
{{- define "sluicegate.imagePullSecrets" -}}
{{- range concat .Values.global.imagePullSecrets .Values.imagePullSecrets }}
- name: {{ if kindIs "map" . }}{{ .name }}{{ else }}{{ . }}{{ end }}
{{- end }}
{{- end }}

{{/* Whole seconds of a duration as the gateway writes it, rounded up. */}}
{{- define "sluicegate.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- if eq $unit "d" }}{{ mul $number 86400 }}
{{- else if eq $unit "h" }}{{ mul $number 3600 }}
{{- else if eq $unit "m" }}{{ mul $number 60 }}
{{- else if eq $unit "s" }}{{ $number }}
{{- else if eq $unit "ms" }}{{ div (add $number 999) 1000 }}
{{- else }}{{ if $number }}1{{ else }}0{{ end }}
{{- end }}
{{- end }}

{{/* What the end of a process takes: preStop's sleep, not_ready, grace, and 5 s for the ops address and the exit. */}}
{{- define "sluicegate.ending" -}}
{{- $shutdown := .Values.config.shutdown | default dict }}
{{- $grace := include "sluicegate.seconds" ($shutdown.grace | default "25s") | int64 }}
{{- $notReady := include "sluicegate.seconds" ($shutdown.not_ready | default "0s") | int64 }}
{{- $hook := dig "preStop" "sleep" "seconds" 0 (.Values.lifecycleHooks | default dict) | int64 }}
{{- add $grace $notReady $hook 5 }}
{{- end }}

{{- define "sluicegate.terminationGracePeriodSeconds" -}}
{{- $least := include "sluicegate.ending" . | int64 }}
{{- with .Values.terminationGracePeriodSeconds }}
{{- if lt (int64 .) $least }}
{{- fail (printf "terminationGracePeriodSeconds: expected at least %d (preStop's sleep, config.shutdown.not_ready, config.shutdown.grace and 5 s), got %d" $least (int64 .)) }}
{{- end }}
{{- int64 . }}
{{- else }}
{{- $least }}
{{- end }}
{{- end }}

{{/* A tree as environment variables, one `NAME: "value"` a line. Takes (dict "name" "SLUICEGATE" "value" tree). */}}
{{- define "sluicegate.variables" -}}
{{- $name := .name }}
{{- if kindIs "map" .value }}
{{- range $key, $value := .value }}
{{- include "sluicegate.variables" (dict "name" (printf "%s__%s" $name (upper $key)) "value" $value) }}
{{- end }}
{{- else if kindIs "slice" .value }}
{{- range $index, $value := .value }}
{{- include "sluicegate.variables" (dict "name" (printf "%s__%d" $name $index) "value" $value) }}
{{- end }}
{{- else if kindIs "string" .value }}
{{ $name }}: {{ .value | quote }}
{{- else if not (kindIs "invalid" .value) }}
{{ $name }}: {{ .value | toJson | quote }}
{{- end }}
{{- end }}

{{/* The static settings: what a running process cannot change. */}}
{{- define "sluicegate.static" -}}
{{- $ports := .Values.containerPorts }}
{{- $addresses := dict }}
{{- range $name := list "http" "grpc" "ops" }}
{{- $_ := set $addresses $name (dict "address" (printf "%s:%d" $.Values.listenHost (index $ports $name | int))) }}
{{- end }}
{{- include "sluicegate.variables" (dict "name" "SLUICEGATE" "value" (merge $addresses (deepCopy .Values.config))) }}
{{- end }}

{{/* Where rollouts are kept: sqlite, postgres, or none. */}}
{{- define "sluicegate.state" -}}
{{- $sqlite := .Values.state.sqlite }}
{{- $claim := $sqlite.persistentVolumeClaim }}
{{- if and $sqlite.existingClaim $claim.create }}
{{- fail "state.sqlite: expected one claim, got existingClaim and persistentVolumeClaim" }}
{{- end }}
{{- $isSqlite := or $sqlite.existingClaim $claim.create }}
{{- if and $isSqlite .Values.state.postgres.existingSecret }}
{{- fail "state: expected sqlite or postgres, got both" }}
{{- end }}
{{- if $isSqlite }}
{{- $scaler := or .Values.autoscaling.enabled .Values.keda.enabled }}
{{- if or $scaler (gt (int .Values.replicaCount) 1) }}
{{- fail (printf "state.sqlite: expected one replica, got %s; several share state.postgres" (ternary "a scaler" (printf "replicaCount %d" (int .Values.replicaCount)) $scaler)) }}
{{- end }}
{{- $strategy := .Values.strategy.type | default "RollingUpdate" }}
{{- if ne $strategy "Recreate" }}
{{- fail (printf "strategy.type: expected Recreate with state.sqlite, whose file one process has at a time, got %s" $strategy) }}
{{- end }}
{{- end }}
{{- if $isSqlite }}sqlite{{ else if .Values.state.postgres.existingSecret }}postgres{{ end }}
{{- end }}

{{/* Of sluicegate.yaml: where rollouts are kept, and who is told of them. A change restarts the pods. */}}
{{- define "sluicegate.moving" -}}
{{- $state := include "sluicegate.state" . }}
{{- if and .Values.existingConfigmap (or $state .Values.webhooks) }}
{{- fail (printf "existingConfigmap: expected a ConfigMap of your own that has state and webhooks, got %s as a value too" (ternary "state" "webhooks" (not (empty $state)))) }}
{{- end }}
{{- range $index, $hook := .Values.webhooks }}
{{- if regexMatch "^[a-z]+://[^/]*@" $hook.url }}
{{- fail (printf "webhooks[%d].url: expected no name and password, which the ConfigMap would show, got both; sign with a secret in a file instead" $index) }}
{{- end }}
{{- end }}
{{- if eq $state "sqlite" }}
state:
  path: /var/lib/sluicegate/state.db
{{- else if eq $state "postgres" }}
state:
  postgres: file:/run/secrets/sluicegate-state/url
{{- end }}
{{- with .Values.webhooks }}
webhooks:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* sluicegate.yaml: what a running process follows, and the registries that it refers to. */}}
{{- define "sluicegate.file" -}}
{{- $names := dict }}
{{- range $index, $model := .Values.models }}
{{- if hasKey $names $model.name }}
{{- fail (printf "models[%d].name: `%s` is listed twice" $index $model.name) }}
{{- end }}
{{- $_ := set $names $model.name true }}
{{- $registry := $model.registry | default "local" }}
{{- if not (hasKey $.Values.registries $registry) }}
{{- fail (printf "models[%d].registry: no registry is called `%s`; registries has %s" $index $registry (keys $.Values.registries | sortAlpha | join ", ")) }}
{{- end }}
{{- end }}
registries:
  {{- toYaml .Values.registries | nindent 2 }}
{{- include "sluicegate.moving" . }}
{{- with .Values.batching }}
batching:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not (kindIs "invalid" .Values.models) }}
models:
  {{- toYaml .Values.models | nindent 2 }}
{{- end }}
{{- end }}

{{/* Which source the model store has: claim, image, fetch, volume, or none. */}}
{{- define "sluicegate.store" -}}
{{- if and .Values.existingConfigmap (not (kindIs "invalid" .Values.models)) }}
{{- fail "existingConfigmap: expected either models or a ConfigMap of your own that has them, got both" }}
{{- end }}
{{- $store := .Values.modelStore }}
{{- $sources := list }}
{{- if $store.existingClaim }}{{ $sources = append $sources "existingClaim" }}{{ end }}
{{- if $store.persistentVolumeClaim.create }}{{ $sources = append $sources "persistentVolumeClaim" }}{{ end }}
{{- if $store.image.reference }}{{ $sources = append $sources "image" }}{{ end }}
{{- if $store.fetch.image }}{{ $sources = append $sources "fetch" }}{{ end }}
{{- if $store.volume }}{{ $sources = append $sources "volume" }}{{ end }}
{{- if gt (len $sources) 1 }}
{{- fail (printf "modelStore: expected one source, got %s" (join " and " $sources)) }}
{{- end }}
{{- with $sources }}{{ first . }}{{ end }}
{{- end }}

{{/* The Service's name for operators, which is also the `job` of what Prometheus scrapes. */}}
{{- define "sluicegate.ops" -}}
{{ include "sluicegate.fullname" . }}-ops
{{- end }}

{{- define "sluicegate.modelsConfigMap" -}}
{{- .Values.existingConfigmap | default (printf "%s-models" (include "sluicegate.fullname" .)) }}
{{- end }}

{{/* Rules of a route of the Gateway API, each with the Service behind it. Takes (dict "root" $ "rules" ... "port" ...). */}}
{{- define "sluicegate.routeRules" -}}
{{- range .rules }}
- {{ omit . "backendRefs" | toYaml | nindent 2 | trim }}
  backendRefs:
    {{- if .backendRefs }}
    {{- toYaml .backendRefs | nindent 4 }}
    {{- else }}
    - name: {{ include "sluicegate.fullname" $.root }}
      port: {{ $.port }}
      weight: 1
    {{- end }}
{{- end }}
{{- end }}
