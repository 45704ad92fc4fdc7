{{/* The configuration file. The addresses are the chart's: ports, probes and the network policy go by them. The admin listener stays on
     loopback, where kubectl port-forward reaches it and no other pod does. */}}
{{- define "api-router.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "listen" (mustMerge (dict "public" ":8080" "admin" "127.0.0.1:8082" "metrics" ":9464") ($config.listen | default dict)) -}}
{{- if eq (include "api-router.source" .) "file" -}}
{{- $_ := set $config "policy" (mustMerge (dict "file" (dict "path" "/etc/api-router-policies")) ($config.policy | default dict)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "api-router.source" -}}
{{- dig "policy" "source" "file" .Values.config -}}
{{- end -}}

{{/* "yes" where the public listener speaks TLS. */}}
{{- define "api-router.tls" -}}
{{- if dig "listen" "tls" "cert" "" .Values.config -}}yes{{- end -}}
{{- end -}}

{{/* What a probe does. The kubelet takes any certificate, but has none of its own to show: where clients need one, the router's binary asks
     from inside of the pod, and shows the listener its own. */}}
{{- define "api-router.probe" -}}
{{- $path := index . 1 -}}
{{- with index . 0 -}}
{{- if dig "listen" "tls" "client_ca" "" .Values.config -}}
exec: { command: [/api-router, doctor, --local, --config, /etc/api-router/config.yaml{{ if eq $path "/readyz" }}, --ready{{ end }}] }
{{- else -}}
httpGet: { path: {{ $path }}, port: http{{ if include "api-router.tls" . }}, scheme: HTTPS{{ end }} }
{{- end -}}
{{- end -}}
{{- end -}}

{{/* "yes" where there are documents. */}}
{{- define "api-router.hasDocuments" -}}
{{- if or .Values.existingDocuments .Values.documents -}}yes{{- end -}}
{{- end -}}

{{/* A duration of the configuration, such as 1m30s, in seconds. */}}
{{- define "api-router.seconds" -}}
{{- $total := 0.0 -}}
{{- range regexFindAll "[0-9.]+(ms|h|m|s)" . -1 -}}
{{- $unit := get (dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001) (regexFind "[a-z]+" .) -}}
{{- $total = addf $total (mulf (float64 (regexFind "[0-9.]+" .)) $unit) -}}
{{- end -}}
{{- $total -}}
{{- end -}}

{{/* How long a pod may take to end: the grace in which it serves on while load balancers notice, what running requests may take, 5 s to cut
     the rest, 3 s to send the last telemetry, and as much again. The router does all of this itself on SIGTERM; no preStop hook is needed. */}}
{{- define "api-router.terminationSeconds" -}}
{{- $grace := include "api-router.seconds" (dig "server" "drain_grace" "5s" .Values.config) | float64 -}}
{{- $timeout := include "api-router.seconds" (dig "server" "drain_timeout" "1m" .Values.config) | float64 -}}
{{- addf $grace $timeout 16 | ceil | int -}}
{{- end -}}

{{/* What the schema cannot see: values that contradict each other. */}}
{{- define "api-router.check" -}}
{{- if and .Values.existingDocuments .Values.documents -}}
{{- fail "existingDocuments and documents are both set: keep one of them" -}}
{{- end -}}
{{- if and .Values.state.existingClaim (or .Values.autoscaling.enabled (gt (int .Values.replicas) 1)) -}}
{{- fail "state.existingClaim is a volume of one pod: set replicas to 1 and autoscaling.enabled to false, or leave it out" -}}
{{- end -}}
{{- if and (eq (include "api-router.source" .) "etcd") (not (dig "policy" "etcd" "endpoints" nil .Values.config)) -}}
{{- fail "config.policy.source is etcd: say where it is with config.policy.etcd.endpoints" -}}
{{- end -}}
{{- if and (eq (include "api-router.source" .) "state") (not (dig "state" "url" "" .Values.config)) -}}
{{- fail "config.policy.source is state: name the PostgreSQL database that all pods share with config.state.url" -}}
{{- end -}}
{{- if and (eq (dig "environment" "production" .Values.config) "production") (dig "identity" "development_keys" false .Values.config) -}}
{{- fail "config.identity.development_keys is refused in production: anybody can make such a key" -}}
{{- end -}}
{{- if and .Values.tests.developmentKey (not (dig "identity" "development_keys" false .Values.config)) -}}
{{- fail "tests.developmentKey needs config.identity.development_keys; with other keys use tests.keySecret" -}}
{{- end -}}
{{/* A schema's message would repeat the value: these say where it is and no more. */}}
{{- $references := dict
      "config.policy.etcd.password" (dig "policy" "etcd" "password" "" .Values.config)
      "config.state.password" (dig "state" "password" "" .Values.config)
      "config.identity.user_org_service.token" (dig "identity" "user_org_service" "token" "" .Values.config) -}}
{{- range $list := list "peppers" "validation_tokens" -}}
{{- range $i, $reference := dig "identity" $list list $.Values.config -}}
{{- $_ := set $references (printf "number %d of config.identity.%s" (add1 $i) $list) $reference -}}
{{- end -}}
{{- end -}}
{{- range dig "identity" "admin_tokens" list .Values.config -}}
{{- $_ := set $references (printf "token of %s in config.identity.admin_tokens" .name) .token -}}
{{- end -}}
{{- range $where, $reference := $references -}}
{{- if and $reference (not (regexMatch "^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$" $reference)) -}}
{{- fail (printf "%s: a reference is wanted, env:NAME or file:PATH, and never the secret itself" $where) -}}
{{- end -}}
{{- end -}}
{{- $url := dig "state" "url" "" .Values.config -}}
{{- if or (regexMatch "^[a-z]+://[^/?]*:[^/?]*@" $url) (regexMatch "[?&](password|sslpassword)=" $url) -}}
{{- fail "config.state.url has a password in it: say where it is with config.state.password, file:/run/secrets/api-router/FILE" -}}
{{- end -}}
{{- if and .Values.tests.developmentKey (not (regexMatch "^(test|dev)-[-A-Za-z0-9._]+$" .Values.tests.developmentKey)) -}}
{{- fail "tests.developmentKey is no development key, test-ORGANIZATION-ID or dev-ORGANIZATION-ID: any other key belongs in a Secret, see tests.keySecret" -}}
{{- end -}}
{{- if contains "@" .Values.otlp.endpoint -}}
{{- fail "otlp.endpoint has a user in it: send it as a header, OTEL_EXPORTER_OTLP_HEADERS in env, from a Secret" -}}
{{- end -}}
{{- $files := list -}}
{{- range .Values.secrets -}}{{- $files = append $files .file -}}{{- end -}}
{{- if ne (len $files) (len (uniq $files)) -}}
{{- fail "secrets has two entries for one file" -}}
{{- end -}}
{{- range regexFindAll "/run/secrets/api-router/[-._a-zA-Z0-9]+" (cat (toYaml .Values.config) (toYaml .Values.documents)) -1 -}}
{{- if not (has (base .) $files) -}}
{{- fail (printf "config or documents refer to %s: add { file: %s, secret: NAME, key: KEY } to secrets" . (base .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
