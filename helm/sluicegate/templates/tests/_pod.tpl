{{/* A pod of `helm test` that runs one script. Takes (dict "root" $ "name" ... "script" ...). */}}
{{- define "sluicegate.test" -}}
{{- $values := .root.Values -}}
{{- if $values.tests.enabled -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ include "sluicegate.fullname" .root }}-test-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- /* Not those of the selector: Services must not send requests to it. */}}
    helm.sh/chart: {{ include "sluicegate.chart" .root }}
    app.kubernetes.io/managed-by: {{ .root.Release.Service }}
    app.kubernetes.io/component: test
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  {{- with include "sluicegate.imagePullSecrets" .root | trim }}
  imagePullSecrets:
    {{- . | nindent 4 }}
  {{- end }}
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: {{ .name }}
      image: {{ if $values.global.imageRegistry }}{{ $values.global.imageRegistry }}/{{ end }}{{ $values.tests.image.repository }}:{{ $values.tests.image.tag }}
      imagePullPolicy: {{ $values.tests.image.pullPolicy }}
      command: [sh, -euc]
      args:
        - |
          {{- .script | trim | nindent 10 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      {{- with $values.tests.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
{{- end }}

{{/* The two Services, as URLs. */}}
{{- define "sluicegate.httpUrl" -}}
http://{{ include "sluicegate.fullname" . }}:{{ .Values.service.port }}
{{- end }}
{{- define "sluicegate.opsUrl" -}}
http://{{ include "sluicegate.ops" . }}:{{ .Values.service.opsPort }}
{{- end }}
