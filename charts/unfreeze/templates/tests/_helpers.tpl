{{/* Takes the weight. What a test made stays until the next one, or until it has succeeded. */}}
{{- define "unfreeze.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* Not the operator's selector: the operator's Service must not find them. */}}
{{- define "unfreeze.testLabels" -}}
{{- $labels := include "unfreeze.labels" . | fromYaml -}}
{{- toYaml (set $labels "app.kubernetes.io/name" "unfreeze-test") -}}
{{- end }}

{{- define "unfreeze.testPod" -}}
restartPolicy: Never
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- define "unfreeze.testContainer" -}}
image: {{ include "unfreeze.image" (list . .Values.image) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
resources:
  requests: {cpu: 10m, memory: 64Mi}
  limits: {memory: 256Mi}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}
