{{/* Start of all names, at most 40 characters, so that what is added still fits 63. */}}
{{- define "unfreeze.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* What the schema cannot say of the values. */}}
{{- define "unfreeze.check" -}}
{{- $name := include "unfreeze.fullname" . -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "no Service can be named %s-operator: set fullnameOverride to small letters, digits and dashes" $name) -}}
{{- end -}}
{{- $own := include "unfreeze.labels" (set (deepCopy .) "Values" (dict "commonLabels" dict)) | fromYaml -}}
{{- range $key, $_ := .Values.commonLabels -}}
{{- if hasKey $own $key -}}{{- fail (printf "commonLabels: %s is the chart's own" $key) -}}{{- end -}}
{{- end -}}
{{- range $key, $_ := .Values.podLabels -}}
{{- if hasKey $own $key -}}{{- fail (printf "podLabels: %s is the chart's own" $key) -}}{{- end -}}
{{- end -}}
{{- /* A release that --reuse-values upgrades does not know the value. */ -}}
{{- $held := dig "enabled" true (.Values.admissionPolicy | default dict) -}}
{{- range .Values.namespaces -}}
{{- if and $held (has . (list $.Release.Namespace "kube-system" "kube-public" "kube-node-lease")) -}}
{{- fail (printf "namespaces: admissionPolicy keeps the operator from making jobs' pods in %s: name others, or set admissionPolicy.enabled to false" .) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (empty .Values.networkPolicy.apiServerPorts) -}}
{{- fail "networkPolicy.enabled needs networkPolicy.apiServerPorts: without them the operator could reach anything" -}}
{{- end -}}
{{- end }}

{{- define "unfreeze.operator" -}}
{{ include "unfreeze.fullname" . }}-operator
{{- end }}

{{- define "unfreeze.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "unfreeze.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* Empty: the cluster's default. */}}
{{- define "unfreeze.priorityClass" -}}
{{- default (ternary (include "unfreeze.operator" .) "" .Values.priorityClass.create) .Values.priorityClass.name -}}
{{- end }}

{{/*
What a selector holds: it can never change, so nothing of a version or of a person is in it. The name is what the
NetworkPolicies of jobs let in.
*/}}
{{- define "unfreeze.selector" -}}
app.kubernetes.io/name: unfreeze-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "unfreeze.labels" -}}
{{ include "unfreeze.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
Takes [context, file, annotations]: manifests as they lie in files/, with the chart's labels. As text: through fromYaml, large
integers would come out as floats.
*/}}
{{- define "unfreeze.file" -}}
{{- $context := index . 0 -}}
{{- $metadata := "metadata:\n  labels:" -}}
{{- range $key, $value := include "unfreeze.labels" $context | fromYaml -}}
{{- $metadata = printf "%s\n    %s: %s" $metadata $key (quote $value) -}}
{{- end -}}
{{- $context.Files.Get (index . 1) | replace "\nmetadata:\n" (printf "\n%s%s\n" $metadata (index . 2)) -}}
{{- end }}

{{/* Takes [{name: ...}]. */}}
{{- define "unfreeze.names" -}}
{{- $names := list -}}
{{- range . }}{{ $names = append $names .name }}{{ end -}}
{{- join " " $names -}}
{{- end }}

{{/* Takes [context, image]. */}}
{{- define "unfreeze.image" -}}
{{- $context := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $context.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end }}

{{/* What selects the pods of all jobs, and their port: as the operator makes them. */}}
{{- define "unfreeze.trainerSelector" -}}
app.kubernetes.io/managed-by: unfreeze-operator
{{- end }}
{{- define "unfreeze.trainerPort" -}}
9470
{{- end }}

{{- define "unfreeze.scrape" -}}
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .relabelings }}
relabelings: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings: {{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{/* What Prometheus takes of a target at most. */}}
{{- define "unfreeze.limits" -}}
{{- with .sampleLimit }}
sampleLimit: {{ int64 . }}
{{- end }}
{{- with .labelLimit }}
labelLimit: {{ int64 . }}
labelNameLengthLimit: 128
labelValueLengthLimit: 512
{{- end }}
{{- with .bodySizeLimit }}
bodySizeLimit: {{ . }}
{{- end }}
{{- end }}
