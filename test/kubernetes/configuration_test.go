package kubernetes

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/ai-aas/api-router/test/rig"
)

// router is the Deployment of the router.
func router(t *testing.T, all objects) *appsv1.Deployment {
	t.Helper()
	for _, d := range each[*appsv1.Deployment](all) {
		if d.Labels["app.kubernetes.io/component"] == "router" {
			return d
		}
	}
	t.Fatal("there is no router")
	return nil
}

// lay writes a ConfigMap into a folder, as a volume of it looks.
func lay(t *testing.T, c *corev1.ConfigMap) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range c.Data {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// configuration is the router's configuration file.
func configuration(t *testing.T, all objects) (path string, parsed map[string]any) {
	t.Helper()
	path = filepath.Join(lay(t, get[*corev1.ConfigMap](t, all, router(t, all).Name)), "config.yaml")
	if err := yaml.UnmarshalStrict([]byte(read(t, path)), &parsed); err != nil {
		t.Fatal(err)
	}
	return path, parsed
}

func TestTheRouterFindsNothingWrongWithItsConfigurationAndDocuments(t *testing.T) {
	for _, v := range installations {
		t.Run(v.name, func(t *testing.T) {
			all := render(t, v)
			config, _ := configuration(t, all)
			documents := t.TempDir()
			for _, c := range each[*corev1.ConfigMap](all) {
				if strings.HasSuffix(c.Name, "-documents") {
					documents = lay(t, c)
				}
			}
			out, err := command(t, "check", "--config", config, "-f", documents)
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
			t.Log(out)
		})
	}
}

// The chart's schema and the router's table of settings are held together: each setting is a value, and each value a setting.
func TestEverySettingIsAValueAndEveryValueASetting(t *testing.T) {
	const lists = "identity.admin_tokens usage.sinks policy.etcd.endpoints"
	theirs := []string{"listen.public", "listen.admin", "listen.metrics", "policy.file.path"} // The chart's own.
	out, err := command(t, "check", "--settings")
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]bool{}
	for line := range strings.Lines(out) {
		cells := strings.Split(line, "|")
		if len(cells) > 5 && strings.HasPrefix(cells[2], " `API_ROUTER_") {
			if path := strings.Trim(cells[1], " `"); !slices.Contains(theirs, path) {
				settings[path] = true
			}
		}
	}
	var schema struct{ Properties map[string]json.RawMessage }
	if err := json.Unmarshal([]byte(read(t, filepath.Join(chart, "values.schema.json"))), &schema); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	var leaves func(path string, raw json.RawMessage)
	leaves = func(path string, raw json.RawMessage) {
		var node struct {
			Properties           map[string]json.RawMessage
			AdditionalProperties *bool
		}
		if err := json.Unmarshal(raw, &node); err != nil {
			t.Fatal(err)
		}
		if node.Properties == nil || slices.Contains(strings.Fields(lists), path) {
			found[path] = true
			return
		}
		if node.AdditionalProperties == nil || *node.AdditionalProperties {
			t.Errorf("%s: takes any word", path)
		}
		for name, child := range node.Properties {
			leaves(strings.TrimPrefix(path+"."+name, "."), child)
		}
	}
	leaves("", schema.Properties["config"])
	if got, want := slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(settings)); !slices.Equal(got, want) || len(want) == 0 {
		t.Errorf("values.schema.json has under config:\n%v\nthe router has:\n%v", got, want)
	}
}

// What a pod may take to end is more than what the router takes: the grace, the running requests, and three seconds for telemetry.
func TestAPodMayTakeAsLongToEndAsTheRouterTakes(t *testing.T) {
	for _, c := range []struct{ grace, timeout string }{{"5s", "1m"}, {"0s", "0s"}, {"250ms", "1m30s"}, {"10s", "1h"}, {"1.5s", "2.5m"}, {"20s", "1h2m3s"}} {
		all := render(t, values{namespace: "default", sets: []string{"config.server.drain_grace=" + c.grace, "config.server.drain_timeout=" + c.timeout}})
		grace, err := time.ParseDuration(c.grace)
		if err != nil {
			t.Fatal(err)
		}
		timeout, err := time.ParseDuration(c.timeout)
		if err != nil {
			t.Fatal(err)
		}
		const cut, flush, most = 5 * time.Second, 3 * time.Second, 20 * time.Second
		got, least := time.Duration(*router(t, all).Spec.Template.Spec.TerminationGracePeriodSeconds)*time.Second, grace+timeout+cut+flush
		if got < least || got > least+most {
			t.Errorf("grace %s and timeout %s: the pod gets %s, the router takes up to %s", c.grace, c.timeout, got, least)
		}
		if hook := router(t, all).Spec.Template.Spec.Containers[0].Lifecycle; hook != nil {
			t.Error("a preStop hook adds to what was counted here")
		}
	}
}

func TestTheDefaultsOfTheChartAreTheRouters(t *testing.T) {
	all := render(t, installation("defaults"))
	// drain_grace and drain_timeout are left out there, and written out in templates/_config.tpl.
	out, err := command(t, "check", "--settings")
	if err != nil {
		t.Fatal(err)
	}
	for setting, value := range map[string]string{"server.drain_grace": "5s", "server.drain_timeout": "1m", "server.max_body": "64MiB"} {
		if !strings.Contains(out, "| `"+setting+"` |") || !strings.Contains(out[strings.Index(out, "| `"+setting+"` |"):], "| `"+value+"` |") {
			t.Errorf("the default of %s is not %s any more: see templates/_config.tpl and templates/routes.yaml", setting, value)
		}
	}
	if got := *router(t, all).Spec.Template.Spec.TerminationGracePeriodSeconds; got != 81 {
		t.Errorf("a pod gets %d s to end", got)
	}
}

func TestTheIngressTakesBodiesAsLargeAsTheRouterDoesAndHoldsNothingBack(t *testing.T) {
	const nginx = "nginx.ingress.kubernetes.io/"
	for size, want := range map[string]string{"": "64m", "64MiB": "64m", "1GiB": "1g", "512KiB": "512k"} {
		v := values{namespace: "default", sets: []string{"ingress.enabled=true"}}
		if size != "" {
			v.sets = append(v.sets, "config.server.max_body="+size)
		}
		all := render(t, v)
		got := get[*networkingv1.Ingress](t, all, "api-router").Annotations
		if got[nginx+"proxy-body-size"] != want || got[nginx+"proxy-buffering"] != "off" || got[nginx+"proxy-request-buffering"] != "off" {
			t.Errorf("max_body %s: %v", size, got)
		}
		if seconds, err := strconv.Atoi(got[nginx+"proxy-read-timeout"]); err != nil || seconds < 1800 {
			t.Errorf("nginx ends a stream after %s s, the router after half an hour", got[nginx+"proxy-read-timeout"])
		}
	}
}

// The names that the earlier service's deployments know.
func TestTheDevelopmentValuesHaveTheNamesOfTheEarlierService(t *testing.T) {
	const name = "api-router-service-development-api-router-service"
	all := render(t, installation("development"))
	service := get[*corev1.Service](t, all, name)
	if service.Namespace != "development" || service.Labels["app.kubernetes.io/name"] != "api-router-service" || service.Spec.Ports[0].Port != 8080 {
		t.Errorf("%v", service)
	}
	for service, at := range map[string]string{"etcd-service": "development 2379", "otel-collector": "monitoring 4317", "vllm-gpt-oss-20b": "system 8000"} {
		s := get[*corev1.Service](t, all, service)
		if got := s.Namespace + " " + strconv.Itoa(int(s.Spec.Ports[0].Port)); got != at {
			t.Errorf("%s is at %s, not %s", service, got, at)
		}
	}
	_, config := configuration(t, all)
	if got := config["policy"].(map[string]any)["etcd"].(map[string]any)["endpoints"].([]any)[0]; got != "etcd-service:2379" {
		t.Errorf("etcd is %v", got)
	}
	real := render(t, installation("a real vLLM"))
	args := get[*appsv1.Deployment](t, real, "vllm-gpt-oss-20b").Spec.Template.Spec.Containers[0].Args
	if !slices.Contains(args, "--served-model-name=gpt-oss-20b") {
		t.Errorf("vLLM is started with %v", args)
	}
}

func TestTheAdminListenerStaysOnLoopback(t *testing.T) {
	for _, v := range installations {
		all := render(t, v)
		if _, config := configuration(t, all); config["listen"].(map[string]any)["admin"] != "127.0.0.1:8082" {
			t.Errorf("%s: %v", v.name, config["listen"])
		}
		for _, s := range each[*corev1.Service](all) {
			for _, port := range s.Spec.Ports {
				if port.TargetPort.StrVal == "admin" || port.TargetPort.IntVal == 8082 {
					t.Errorf("%s: the Service %s leads to it", v.name, s.Name)
				}
			}
		}
	}
}

func TestTheSeedJobRunsAfterInstallAndUpgradeWhereThereIsSomethingToSeed(t *testing.T) {
	for _, v := range installations {
		all := render(t, v)
		_, config := configuration(t, all)
		jobs := each[*batchv1.Job](all)
		want := 0
		if config["policy"].(map[string]any)["source"] == "etcd" {
			want = 1
		}
		if len(jobs) != want {
			t.Errorf("%s: %d jobs", v.name, len(jobs))
			continue
		}
		for _, j := range jobs {
			if j.Annotations["helm.sh/hook"] != "post-install,post-upgrade" || j.Annotations["helm.sh/hook-delete-policy"] != "before-hook-creation" {
				t.Errorf("%s: %v", v.name, j.Annotations)
			}
			if j.Spec.Template.Spec.Containers[0].Image != router(t, all).Spec.Template.Spec.Containers[0].Image {
				t.Errorf("%s: the job runs another image than the router", v.name)
			}
		}
	}
}

func TestThePodsStartAnewWhenTheConfigurationChangesAndOnlyThen(t *testing.T) {
	sum := func(sets ...string) string {
		v := installation("development")
		v.sets = sets
		return router(t, render(t, v)).Spec.Template.Annotations["checksum/config"]
	}
	was := sum()
	if sum(`documents.more\.yaml=kind: Price`) != was {
		t.Error("a document restarts the pods")
	}
	if sum("config.log.level=warn") == was {
		t.Error("a setting does not")
	}
}

func TestPromtoolFindsNothingWrongWithTheRenderedRules(t *testing.T) {
	all := render(t, installation("production"))
	rules := get[*monitoringv1.PrometheusRule](t, all, "api-router")
	content, err := yaml.Marshal(rules.Spec)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), rig.Tool(t, "promtool"), "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	var here monitoringv1.PrometheusRuleSpec
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(root, "deploy/alerts/api-router.rules.yaml"))), &here); err != nil {
		t.Fatal(err)
	}
	if want, err := yaml.Marshal(here); err != nil || string(want) != string(content) {
		t.Error("the rendered rules are not those of deploy/alerts")
	}
	// The rules and dashboards ask for the job api-router, whatever the Service is called.
	relabel := get[*monitoringv1.ServiceMonitor](t, all, "api-router").Spec.Endpoints[0].RelabelConfigs
	if len(relabel) != 1 || relabel[0].TargetLabel != "job" || *relabel[0].Replacement != "api-router" {
		t.Errorf("%v", relabel)
	}
}

func TestTheDashboardsAreThoseOfTheRepositoryAndFitIntoAConfigMap(t *testing.T) {
	all, found := render(t, installation("production")), 0
	for _, c := range each[*corev1.ConfigMap](all) {
		if c.Labels["grafana_dashboard"] != "1" {
			continue
		}
		found++
		for name, content := range c.Data {
			if strings.TrimSpace(content) != strings.TrimSpace(read(t, filepath.Join(root, "deploy/grafana", name))) {
				t.Errorf("%s is not that of deploy/grafana", name)
			}
			const most = 1 << 20
			if len(content) > most {
				t.Errorf("%s: %d bytes do not fit into a ConfigMap", name, len(content))
			}
		}
	}
	if files, err := filepath.Glob(filepath.Join(root, "deploy/grafana/*.json")); err != nil || len(files) != found {
		t.Errorf("%d dashboards of %d", found, len(files))
	}
}

func TestTheCollectorTakesItsConfiguration(t *testing.T) {
	dir := lay(t, get[*corev1.ConfigMap](t, render(t, installation("development")), "otel-collector"))
	if out, err := exec.CommandContext(t.Context(), rig.Tool(t, "otelcol"), "validate", "--config", filepath.Join(dir, "collector.yaml")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestTheArgoApplicationNamesAChartAndValuesThatAreThere(t *testing.T) {
	var application struct {
		APIVersion, Kind string
		Spec             struct {
			Destination struct{ Namespace string }
			Source      struct {
				Path string
				Helm struct {
					ReleaseName  string
					ValueFiles   []string
					ValuesObject map[string]any
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(root, "deploy/argocd/application.yaml"))), &application); err != nil {
		t.Fatal(err)
	}
	source := application.Spec.Source
	if application.Kind != "Application" || filepath.Clean(filepath.Join(root, source.Path)) != filepath.Clean(chart) {
		t.Errorf("%+v", application)
	}
	own, err := yaml.Marshal(source.Helm.ValuesObject)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, own, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"template", source.Helm.ReleaseName, chart, "--namespace", application.Spec.Destination.Namespace, "--kube-version", "1.37.0"}
	for _, f := range source.Helm.ValueFiles {
		args = append(args, "--values", filepath.Join(chart, f))
	}
	out, err := helm(t, append(args, "--values", file)...)
	if err != nil {
		t.Fatal(err)
	}
	audit(t, values{}, decode(t, out))
}
