{{- define "bearer-proxy.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "bearer-proxy.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "bearer-proxy.labels" -}}
{{ include "bearer-proxy.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "bearer-proxy.image" -}}
{{- $repository := .Values.image.repository | required "image.repository is missing: the place of the image in your registry" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "bearer-proxy.configMap" -}}
{{- default (include "bearer-proxy.fullname" .) .Values.existingConfigMap.name -}}
{{- end -}}

{{- define "bearer-proxy.serviceAccount" -}}
{{- with .Values.gateway.serviceAccount -}}
{{- default (.create | ternary (include "bearer-proxy.fullname" $) "default") .name -}}
{{- end -}}
{{- end -}}

{{/* Whether replicas may hold the same token, through the store of [share]; empty if not. */}}
{{- define "bearer-proxy.sharesTokens" -}}
{{- if .Values.existingConfigMap.name -}}
{{- ternary "yes" "" .Values.sharesTokens -}}
{{- else if and (regexMatch `(?m)^\s*\[\s*share\s*\]` .Values.config) (regexMatch `(?m)^[^#\n]*\bshare\s*=\s*true\b` .Values.config) -}}
yes
{{- end -}}
{{- end -}}

{{/* Whether the pods get the token of their service account. */}}
{{- define "bearer-proxy.automountToken" -}}
{{- or .Values.gateway.serviceAccount.automountToken .Values.share.kubernetes.enabled -}}
{{- end -}}

{{/* Whether a second instance would end the token of the first one; empty if not. */}}
{{- define "bearer-proxy.oneInstance" -}}
{{- if and .Values.oneLiveToken (not (include "bearer-proxy.sharesTokens" .)) -}}
yes
{{- end -}}
{{- end -}}

{{/* Values that contradict each other. The schema knows their forms. */}}
{{- define "bearer-proxy.validate" -}}
{{- $given := .Values.config | trim -}}
{{- if and (not $given) (not .Values.existingConfigMap.name) -}}
{{- fail "config is missing: write the configuration into it, or name a ConfigMap in existingConfigMap.name" -}}
{{- end -}}
{{- if and $given .Values.existingConfigMap.name -}}
{{- fail "config and existingConfigMap.name are two configurations; leave one of them out" -}}
{{- end -}}
{{- if regexMatch `(?m)^\s*(\[\s*(server|admin|shutdown)\s*[\].]|version\s*=)` $given -}}
{{- fail "config has version, [server], [admin] or [shutdown], which the chart writes; for [server] use the values server and allowedHosts" -}}
{{- end -}}
{{- if eq .Values.mode "gateway" -}}
{{- if and $given (not .Values.allowAnyone) (not (regexMatch `(?m)^\s*(\[\s*clients\s*[\].]|clients\s*[.=])` $given)) -}}
{{- fail "config has no [clients]: all who reach the gateway could use its tokens; list clients, or set allowAnyone if the NetworkPolicy decides" -}}
{{- end -}}
{{- if and .Values.sharesTokens $given -}}
{{- fail "sharesTokens is for existingConfigMap; in config it is seen by [share] and share = true" -}}
{{- end -}}
{{- if include "bearer-proxy.oneInstance" . -}}
{{- if gt (int .Values.gateway.replicas) 1 -}}
{{- fail "oneLiveToken: with more than one replica, each token that one fetches ends that of the others; set gateway.replicas to 1, or share the token: [share], and share = true of the credential" -}}
{{- end -}}
{{- if ne (dig "type" "Recreate" .Values.gateway.strategy) "Recreate" -}}
{{- fail "oneLiveToken: a rolling update runs two instances, and the token of the new one ends that of the old one; leave gateway.strategy out" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.share.kubernetes.enabled -}}
{{- if ne .Values.mode "gateway" -}}
{{- fail "share.kubernetes is for mode gateway: the pods with a sidecar have a service account of the app; see deploy/kubernetes/share.yaml" -}}
{{- end -}}
{{- if eq (include "bearer-proxy.serviceAccount" .) "default" -}}
{{- fail "share.kubernetes: its rights would go to all pods of the service account default; set gateway.serviceAccount.create, or name one" -}}
{{- end -}}
{{- end -}}
{{- range $name, $source := .Values.secrets -}}
{{- if eq (hasKey $source "secretName") (hasKey $source "csi") -}}
{{- fail (printf "secrets.%s: exactly one of secretName and csi says where the files come from" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
