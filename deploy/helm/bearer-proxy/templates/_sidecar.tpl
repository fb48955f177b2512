{{/*
The container and its volumes. Another chart that depends on this one, with `mode: sidecar`, writes them
into the pod of its app:

  initContainers:
    {{- include "bearer-proxy.sidecar" (index .Subcharts "bearer-proxy") | nindent 4 }}
  volumes:
    {{- include "bearer-proxy.volumes" (index .Subcharts "bearer-proxy") | nindent 4 }}

With `sidecar.form: classic` the first goes to the beginning of `containers`.
*/}}
{{- define "bearer-proxy.sidecar" -}}
{{- include "bearer-proxy.validate" . -}}
- {{ include "bearer-proxy.container" . | nindent 2 | trim }}
{{- if eq .Values.sidecar.form "native" }}
  restartPolicy: Always
{{- else }}
  # The next container is started when this has ended.
  lifecycle:
    postStart:
      exec:
        command: ["/bearer-proxy", "wait", "--timeout", "60s"]
{{- end }}
{{- end -}}

{{/* What containers of all modes have. No readiness probe: a sidecar's readiness is the pod's. */}}
{{- define "bearer-proxy.container" -}}
{{- $prefix := include "bearer-proxy.volumePrefix" . -}}
name: {{ $prefix }}
image: {{ include "bearer-proxy.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: BEARER_PROXY_CONFIG
    value: /etc/bearer-proxy/{{ .Values.existingConfigMap.key }}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
# Errors in the configuration, with line and column, are shown by kubectl describe.
terminationMessagePolicy: FallbackToLogsOnError
ports:
  {{- if eq .Values.mode "gateway" }}
  - name: http
    containerPort: 6750
  {{- end }}
  - name: bp-admin
    containerPort: 6751
startupProbe:
  httpGet: { path: /startupz, port: bp-admin }
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /livez, port: bp-admin }
{{- if eq .Values.mode "gateway" }}
readinessProbe:
  httpGet: { path: /readyz, port: bp-admin }
  periodSeconds: 2
  failureThreshold: 1
{{- end }}
securityContext: {{- include "bearer-proxy.securityContext" . | nindent 2 }}
resources: {{- toYaml .Values.resources | nindent 2 }}
volumeMounts: {{- include "bearer-proxy.volumeMounts" . | nindent 2 }}
{{- end -}}

{{/* User and group are the image's, or those that OpenShift chooses. */}}
{{- define "bearer-proxy.securityContext" -}}
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "bearer-proxy.volumePrefix" -}}
{{- eq .Values.mode "gateway" | ternary "bearer-proxy" .Values.sidecar.volumePrefix -}}
{{- end -}}

{{- define "bearer-proxy.volumeMounts" -}}
{{- $prefix := include "bearer-proxy.volumePrefix" . -}}
- name: {{ $prefix }}-config
  mountPath: /etc/bearer-proxy
  readOnly: true
- name: {{ $prefix }}-run
  mountPath: /run/bearer-proxy
{{- range $name, $_ := .Values.secrets }}
- name: {{ $prefix }}-{{ $name }}
  mountPath: /run/secrets/{{ $name }}
  readOnly: true
{{- end }}
{{- if and (eq .Values.mode "gateway") .Values.gateway.tls.secretName }}
- name: {{ $prefix }}-tls
  mountPath: /run/tls
  readOnly: true
{{- end }}
{{- end -}}

{{- define "bearer-proxy.volumes" -}}
{{- $prefix := include "bearer-proxy.volumePrefix" . -}}
- name: {{ $prefix }}-config
  configMap:
    name: {{ include "bearer-proxy.configMap" . }}
- name: {{ $prefix }}-run
  emptyDir: { medium: Memory, sizeLimit: 1Mi }
{{- range $name, $source := .Values.secrets }}
- name: {{ $prefix }}-{{ $name }}
  {{- if $source.csi }}
  csi: {{- merge (dict "readOnly" true) $source.csi | toYaml | nindent 4 }}
  {{- else }}
  secret:
    secretName: {{ $source.secretName }}
    # Readable for any user in the container, and only this container mounts it.
    defaultMode: 0444
    {{- with $source.items }}
    items: {{- toYaml . | nindent 6 }}
    {{- end }}
  {{- end }}
{{- end }}
{{- if and (eq .Values.mode "gateway") .Values.gateway.tls.secretName }}
- name: {{ $prefix }}-tls
  secret:
    secretName: {{ .Values.gateway.tls.secretName }}
    defaultMode: 0444
{{- end }}
{{- end -}}
