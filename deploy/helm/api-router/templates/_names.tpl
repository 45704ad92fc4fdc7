{{/* The name of the application: the label app.kubernetes.io/name. */}}
{{- define "api-router.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What the objects of this release are called. 52 characters leave room for "-documents" and the like, and for the hash of a job's pod. */}}
{{- define "api-router.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "api-router.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "api-router.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "api-router.fullname" .) -}}
{{- end -}}

{{- define "api-router.documents" -}}
{{- .Values.existingDocuments | default (printf "%s-documents" (include "api-router.fullname" .)) -}}
{{- end -}}

{{/* An image by its digest where there is one: (list IMAGE DEFAULT-TAG). */}}
{{- define "api-router.image" -}}
{{- $image := index . 0 -}}
{{- $tag := $image.tag | default (index . 1) -}}
{{- $image.repository -}}:{{- $tag -}}{{- with $image.digest -}}@{{- . -}}{{- end -}}
{{- end -}}

{{/* What objects of one part are selected by: (list ROOT NAME COMPONENT). The component keeps the pods of jobs and tests out of the service. */}}
{{- define "api-router.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 2 }}
{{- end -}}

{{/* All labels of one part: as above. Pods carry the selector alone: a new version of the chart must not restart an etcd. */}}
{{- define "api-router.labels" -}}
{{ include "api-router.selector" . }}
app.kubernetes.io/part-of: api-router
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name ((index . 0).Chart.Version | replace "+" "_") }}
{{- end -}}

{{- define "api-router.own.labels" -}}
{{- include "api-router.labels" (list . (include "api-router.name" .) "router") -}}
{{- end -}}

{{- define "api-router.own.selector" -}}
{{- include "api-router.selector" (list . (include "api-router.name" .) "router") -}}
{{- end -}}
