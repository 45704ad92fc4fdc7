{{/* Every pod of this chart but vLLM's: not root, nothing writable but its volumes, no privilege, no token, no variables for each Service of the
     namespace, which would be mistaken for settings ("API_ROUTER_PORT" is a Service api-router, and no port). */}}
{{- define "api-router.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "api-router.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end -}}

{{- define "api-router.env" -}}
- name: POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: POD_NAMESPACE
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
- name: NODE_NAME
  valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME),k8s.node.name=$(NODE_NAME)
{{- with .Values.otlp.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Volumes and mounts that the router and the seed job share: the configuration and secrets. A Secret that is
     missing is optional on purpose: the router says what it lacks and serves what it can. */}}
{{- define "api-router.mounts" -}}
- { name: config, mountPath: /etc/api-router, readOnly: true }
{{- if .Values.secrets }}
- { name: secrets, mountPath: /run/secrets/api-router, readOnly: true }
{{- end }}
{{- end -}}

{{- define "api-router.volumes" -}}
- name: config
  configMap: { name: {{ include "api-router.fullname" . }} }
{{- with .Values.secrets }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range . }}
      - secret: { name: {{ .secret }}, optional: true, items: [{ key: {{ .key }}, path: {{ .file }} }] }
      {{- end }}
{{- end }}
{{- end -}}

{{- define "api-router.documentsVolume" -}}
- name: documents
  configMap: { name: {{ include "api-router.documents" . }} }
{{- end -}}
