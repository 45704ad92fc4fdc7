package kubernetes

import (
	"slices"
	"strings"
	"testing"
)

// everything switches each option on that the development values leave off.
var everything = []string{
	"replicas=3", "redis.enabled=true", "etcd.storage=1Gi", "ingress.enabled=true", "ingress.tlsSecret=tls",
	"httpRoute.enabled=true", "httpRoute.parentRefs[0].name=gateway", "httpRoute.parentRefs[0].namespace=gateways", "httpRoute.hostnames[0]=api.example.org",
	"autoscaling.enabled=true", "monitoring.serviceMonitor.enabled=true", "monitoring.rules.enabled=true", "monitoring.dashboards.enabled=true",
	"monitoring.serviceMonitor.labels.release=prometheus", "priorityClassName=high", "nodeSelector.pool=cpu", "podLabels.team=serving", "podAnnotations.note=here",
	"service.annotations.note=here", "serviceAccount.annotations.note=here", "service.type=LoadBalancer", "imagePullSecrets[0].name=pull",
	"tolerations[0].key=cpu", "tolerations[0].operator=Exists", "networkPolicy.clients[0].podSelector.matchLabels.app=shop",
	"image.digest=sha256:" + strings.Repeat("0123456789abcdef", 4),
	"config.identity.admin_tokens[0].name=ada", "config.identity.admin_tokens[0].role=admin", "config.identity.admin_tokens[0].token=file:/run/secrets/api-router/ada",
	"secrets[0].file=ada", "secrets[0].secret=api-router-admin", "secrets[0].key=ada",
	"env[0].name=OTEL_EXPORTER_OTLP_HEADERS", "env[0].valueFrom.secretKeyRef.name=otlp", "env[0].valueFrom.secretKeyRef.key=headers",
}

// tlsFiles give the public listener TLS, from a Secret.
var tlsFiles = []string{
	"config.listen.tls.cert=/run/secrets/api-router/tls.crt", "config.listen.tls.key=/run/secrets/api-router/tls.key",
	"secrets[0].file=tls.crt", "secrets[0].secret=tls", "secrets[0].key=tls.crt", "secrets[1].file=tls.key", "secrets[1].secret=tls", "secrets[1].key=tls.key",
}

// installations are the ways in which the chart is held to all that is asked of it.
var installations = []values{
	{name: "defaults", namespace: "default"},
	{name: "development", namespace: "development", file: "values-development.yaml"},
	{name: "staging", namespace: "staging", file: "values-staging.yaml"},
	{name: "production", namespace: "production", file: "values-production.yaml"},
	{name: "all options on", namespace: "development", file: "values-development.yaml", sets: everything, external: []string{"Secret development/otlp"}},
	{
		name: "TLS", namespace: "router", sets: slices.Concat(tlsFiles, []string{"ingress.enabled=true", "tests.keySecret.name=key", "tests.keySecret.key=key", "tests.tlsSecret=client"}),
		external: []string{"Secret router/key", "Secret router/client"},
	},
	{name: "TLS with certificates of clients", namespace: "router", sets: append(slices.Clip(tlsFiles),
		"config.listen.tls.client_ca=/run/secrets/api-router/ca.crt", "secrets[2].file=ca.crt", "secrets[2].secret=clients", "secrets[2].key=ca.crt")},
	{name: "keys, tokens and certificates", namespace: "router", sets: identities},
	{name: "all options off", namespace: "router", sets: []string{
		"disruptionBudget.enabled=false", "seed.enabled=false", "replicas=1", "networkPolicy.enabled=false", "monitoring.dashboards.enabled=false",
	}},
	{
		name: "a real vLLM", namespace: "development", file: "values-development.yaml",
		sets: []string{
			"engine.simulated=false", "engine.gpus=2", "engine.args[0]=--tensor-parallel-size=2", "engine.tokenSecret.name=hf", "engine.tokenSecret.key=token",
			"engine.cacheClaim=models", "engine.nodeSelector.gpu=yes",
		},
		external: []string{"Secret system/hf", "PersistentVolumeClaim system/models"},
	},
	{
		name: "documents in files", namespace: "router",
		sets: []string{"config.environment=staging", "config.identity.development_keys=true", "tests.developmentKey=dev-smoke-1"},
		text: map[string]string{`documents.gpt-oss-20b\.yaml`: "kind: Backend\nid: a\nurl: http://vllm:8000\n---\nkind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{id: a}]\n"},
	},
	{
		name: "documents of somebody else, and a volume", namespace: "router",
		sets:     []string{"existingDocuments=ours", "state.existingClaim=state", "replicas=1", "serviceAccount.name=ours", "tests.keySecret.name=key", "tests.keySecret.key=key"},
		external: []string{"ConfigMap router/ours", "PersistentVolumeClaim router/state", "ServiceAccount router/ours", "Secret router/key"},
	},
	{
		name: "everything in one namespace", namespace: "one", file: "values-development.yaml",
		sets: []string{"engine.namespace=one", "collector.namespace=one", "fullnameOverride=", "nameOverride=", "otlp.endpoint=otel-collector:4317"},
		text: map[string]string{`documents.gpt-oss-20b\.yaml`: "kind: Backend\nid: a\nurl: http://vllm-gpt-oss-20b:8000\n---\nkind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{id: a}]\n"},
	},
}

// installation is the one of this name.
func installation(name string) values {
	return installations[slices.IndexFunc(installations, func(v values) bool { return v.name == name })]
}

func TestHelmLintFindsNothing(t *testing.T) {
	for _, v := range installations {
		t.Run(v.name, func(t *testing.T) {
			args := append([]string{"lint", "--strict", "--quiet", chart}, v.args(t)...)
			if out, err := helm(t, args...); err != nil || strings.Contains(out, "[WARNING]") || strings.Contains(out, "[ERROR]") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// Each object is decoded into the type that Kubernetes, Prometheus's operator or the Gateway API publishes for it; a field that the type
// does not have fails the test.
func TestEveryObjectIsOneThatKubernetesTakesAndAllOfThemFitTogether(t *testing.T) {
	for _, v := range installations {
		t.Run(v.name, func(t *testing.T) {
			all := render(t, v)
			if len(all) == 0 {
				t.Fatal("nothing was rendered")
			}
			audit(t, v, all)
			t.Logf("%d objects", len(all))
		})
	}
}

func TestTheOldestKubernetesThatTheChartNamesIsTheOldestThatItTakes(t *testing.T) {
	for version, takes := range map[string]bool{"1.26.15": false, "1.27.0": true, "1.34.2-gke.100": true} {
		_, err := helm(t, "template", release, chart, "--kube-version", version)
		if (err == nil) != takes {
			t.Errorf("Kubernetes %s: %v", version, err)
		}
	}
}

func TestThePackagedChartRendersTheSame(t *testing.T) {
	dir := t.TempDir()
	if _, err := helm(t, "package", chart, "--destination", dir); err != nil {
		t.Fatal(err)
	}
	v := installation("development")
	from := func(where string) string {
		out, err := helm(t, append([]string{"template", release, where}, v.args(t)...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if from(chart) != from(dir+"/api-router-0.1.0.tgz") {
		t.Error("the packaged chart renders something else: is a file left out by .helmignore?")
	}
}
