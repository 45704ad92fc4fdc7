package kubernetes

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/pod-security-admission/api"
	podsecurity "k8s.io/pod-security-admission/policy"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// pod is what a workload makes pods from.
type pod struct {
	object

	labels   labels.Set
	spec     *corev1.PodSpec
	selector *metav1.LabelSelector // nil for those that are not selected by their owner
}

// pods are those of every workload.
func pods(all objects) []pod {
	var found []pod
	for _, o := range all {
		switch w := o.typed.(type) {
		case *appsv1.Deployment:
			found = append(found, pod{o, w.Spec.Template.Labels, &w.Spec.Template.Spec, w.Spec.Selector})
		case *appsv1.StatefulSet:
			spec := w.Spec.Template.Spec.DeepCopy()
			for _, claim := range w.Spec.VolumeClaimTemplates {
				spec.Volumes = append(spec.Volumes, corev1.Volume{Name: claim.Name, VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}})
			}
			found = append(found, pod{o, w.Spec.Template.Labels, spec, w.Spec.Selector})
		case *batchv1.Job:
			found = append(found, pod{o, w.Spec.Template.Labels, &w.Spec.Template.Spec, nil})
		case *corev1.Pod:
			found = append(found, pod{o, w.Labels, &w.Spec, nil})
		}
	}
	return found
}

// auditor looks for what an API server takes and what does not work all the same.
type auditor struct {
	t    *testing.T
	v    values
	all  objects
	pods []pod
}

func audit(t *testing.T, v values, all objects) {
	t.Helper()
	a := auditor{t, v, all, pods(all)}
	a.names()
	for _, p := range a.pods {
		a.selected(p)
		a.references(p)
		a.security(p)
		a.probes(p)
	}
	a.services()
	a.others()
	a.secrets()
}

// one reports whether a selector of a namespace meets the pods of exactly one workload, and which.
func (a auditor) one(who object, namespace string, selector labels.Selector) (pod, bool) {
	a.t.Helper()
	var met []pod
	for _, p := range a.pods {
		if p.GetNamespace() == namespace && selector.Matches(p.labels) {
			met = append(met, p)
		}
	}
	if len(met) != 1 {
		a.t.Errorf("%s: selects %d workloads, not one: %v", who, len(met), met)
		return pod{}, false
	}
	return met[0], true
}

func (a auditor) selector(who object, s *metav1.LabelSelector) labels.Selector {
	a.t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil || s == nil || selector.Empty() {
		a.t.Errorf("%s: a selector that selects everything or nothing: %v", who, err)
		return labels.Nothing()
	}
	return selector
}

// exists reports whether an object is rendered, or one that the values expect to be there.
func (a auditor) exists(who object, kind, namespace, name string) {
	a.t.Helper()
	there := slices.ContainsFunc(a.all, func(o object) bool { return o.kind == kind && o.GetNamespace() == namespace && o.GetName() == name })
	if !there && !slices.Contains(a.v.external, fmt.Sprintf("%s %s/%s", kind, namespace, name)) {
		a.t.Errorf("%s: refers to %s %s/%s, which nobody makes", who, kind, namespace, name)
	}
}

func (a auditor) names() {
	seen := map[string]bool{}
	for _, o := range a.all {
		if seen[o.String()] {
			a.t.Errorf("%s is there twice", o)
		}
		seen[o.String()] = true
		problems := validation.IsDNS1123Subdomain(o.GetName())
		if o.kind == "Service" {
			problems = validation.IsDNS1035Label(o.GetName())
		}
		for key, value := range o.GetLabels() {
			problems = append(append(problems, validation.IsQualifiedName(key)...), validation.IsValidLabelValue(value)...)
		}
		for key := range o.GetAnnotations() {
			problems = append(problems, validation.IsQualifiedName(strings.ToLower(key))...)
		}
		if len(problems) > 0 {
			a.t.Errorf("%s: %v", o, problems)
		}
		if o.GetNamespace() == "" && o.kind != "Namespace" {
			a.t.Errorf("%s: no namespace: it would go wherever the person happens to be", o)
		}
	}
}

func (a auditor) selected(p pod) {
	if p.selector == nil {
		return
	}
	if met, ok := a.one(p.object, p.GetNamespace(), a.selector(p.object, p.selector)); ok && met.String() != p.String() {
		a.t.Errorf("%s: selects the pods of %s", p, met)
	}
	for _, c := range p.spec.TopologySpreadConstraints {
		a.one(p.object, p.GetNamespace(), a.selector(p.object, c.LabelSelector))
	}
}

// references looks for everything that a pod needs to start.
func (a auditor) references(p pod) {
	namespace := p.GetNamespace()
	if account := p.spec.ServiceAccountName; account != "" {
		a.exists(p.object, "ServiceAccount", namespace, account)
	}
	volumes := map[string]bool{}
	for _, v := range p.spec.Volumes {
		volumes[v.Name] = false
		switch {
		case v.ConfigMap != nil:
			a.exists(p.object, "ConfigMap", namespace, v.ConfigMap.Name)
		case v.PersistentVolumeClaim != nil:
			a.exists(p.object, "PersistentVolumeClaim", namespace, v.PersistentVolumeClaim.ClaimName)
		case v.Secret != nil:
			a.exists(p.object, "Secret", namespace, v.Secret.SecretName)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.Secret == nil || s.Secret.Optional == nil || !*s.Secret.Optional {
					a.t.Errorf("%s: the volume %s holds a pod up until a Secret is there", p, v.Name)
				}
			}
		case v.EmptyDir != nil:
			if v.EmptyDir.SizeLimit.IsZero() {
				a.t.Errorf("%s: the volume %s may fill the disk of its node", p, v.Name)
			}
		}
	}
	for _, c := range p.spec.Containers {
		for _, m := range c.VolumeMounts {
			if _, ok := volumes[m.Name]; !ok {
				a.t.Errorf("%s: mounts %s, which is no volume", p, m.Name)
			}
			volumes[m.Name] = true
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				a.exists(p.object, "Secret", namespace, e.ValueFrom.SecretKeyRef.Name)
			}
		}
		if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
			a.t.Errorf("%s: %s asks for no memory and CPU, or has no limit of memory", p, c.Name)
		}
		if !c.Resources.Limits.Cpu().IsZero() {
			a.t.Errorf("%s: %s has a limit of CPU, which throttles", p, c.Name)
		}
	}
	for name, used := range volumes {
		if !used {
			a.t.Errorf("%s: nobody mounts the volume %s", p, name)
		}
	}
}

// security asks the admission that clusters use: everything is restricted, but for vLLM, whose image wants root.
func (a auditor) security(p pod) {
	level := api.LevelRestricted
	engine := strings.Contains(p.spec.Containers[0].Image, "vllm-openai")
	if engine {
		level = api.LevelBaseline
	}
	evaluator, err := podsecurity.NewEvaluator(podsecurity.DefaultChecks(), nil)
	if err != nil {
		a.t.Fatal(err)
	}
	at := api.LevelVersion{Level: level, Version: api.LatestVersion()}
	for _, result := range evaluator.EvaluatePod(at, &metav1.ObjectMeta{Labels: p.labels}, p.spec) {
		if !result.Allowed {
			a.t.Errorf("%s: not %s: %s: %s", p, level, result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
	if p.spec.AutomountServiceAccountToken == nil || *p.spec.AutomountServiceAccountToken {
		a.t.Errorf("%s: mounts a token that it does not need", p)
	}
	if p.spec.EnableServiceLinks == nil || *p.spec.EnableServiceLinks {
		a.t.Errorf("%s: gets variables for every Service of its namespace", p)
	}
	for _, c := range p.spec.Containers {
		if read := c.SecurityContext.ReadOnlyRootFilesystem; !engine && (read == nil || !*read) {
			a.t.Errorf("%s: %s may write to its image", p, c.Name)
		}
		if !engine && (p.spec.SecurityContext.RunAsUser == nil || *p.spec.SecurityContext.RunAsUser != 65532) {
			a.t.Errorf("%s: does not run as 65532", p)
		}
	}
}

func (a auditor) probes(p pod) {
	for _, c := range p.spec.Containers {
		for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
			if probe == nil {
				continue
			}
			port := intstr.IntOrString{}
			if probe.Exec != nil {
				continue // It asks from inside, by the configuration.
			}
			if probe.HTTPGet != nil {
				port = probe.HTTPGet.Port
			} else if probe.TCPSocket != nil {
				port = probe.TCPSocket.Port
			}
			if number(c, port) == 0 {
				a.t.Errorf("%s: a probe asks the port %s, which %s does not have", p, port.String(), c.Name)
			}
		}
		if c.ReadinessProbe == nil && p.selector != nil {
			a.t.Errorf("%s: %s has no readiness probe", p, c.Name)
		}
	}
}

// number is a container's port, 0 for none.
func number(c corev1.Container, port intstr.IntOrString) int32 {
	for _, own := range c.Ports {
		if own.Name == port.StrVal && port.StrVal != "" || own.ContainerPort == port.IntVal && port.Type == intstr.Int {
			return own.ContainerPort
		}
	}
	return 0
}

func (a auditor) services() {
	for _, o := range a.all {
		s, ok := o.typed.(*corev1.Service)
		if !ok {
			continue
		}
		p, ok := a.one(o, s.Namespace, labels.SelectorFromSet(s.Spec.Selector))
		if !ok {
			continue
		}
		for _, port := range s.Spec.Ports {
			if number(p.spec.Containers[0], port.TargetPort) == 0 {
				a.t.Errorf("%s: its port %s leads to %s of %s, which is none", o, port.Name, port.TargetPort.String(), p)
			}
		}
	}
}

// service wants a Service with a port, by number or by name.
func (a auditor) service(who object, namespace, name string, port intstr.IntOrString) {
	a.t.Helper()
	for _, s := range each[*corev1.Service](a.all) {
		for _, own := range s.Spec.Ports {
			if s.Namespace == namespace && s.Name == name && (own.Port == port.IntVal && port.Type == intstr.Int || own.Name == port.StrVal && port.StrVal != "") {
				return
			}
		}
	}
	a.t.Errorf("%s: there is no Service %s/%s with the port %s", who, namespace, name, port.String())
}

func (a auditor) others() {
	for _, o := range a.all {
		namespace := o.GetNamespace()
		switch x := o.typed.(type) {
		case *policyv1.PodDisruptionBudget:
			a.one(o, namespace, a.selector(o, x.Spec.Selector))
		case *networkingv1.NetworkPolicy:
			a.one(o, namespace, a.selector(o, &x.Spec.PodSelector))
		case *autoscalingv2.HorizontalPodAutoscaler:
			a.exists(o, x.Spec.ScaleTargetRef.Kind, namespace, x.Spec.ScaleTargetRef.Name)
			if d := get[*appsv1.Deployment](a.t, a.all, x.Spec.ScaleTargetRef.Name); d.Spec.Replicas != nil {
				a.t.Errorf("%s: each upgrade would set back what it decided: %s has replicas", o, d.Name)
			}
		case *networkingv1.Ingress:
			for _, r := range x.Spec.Rules {
				for _, path := range r.HTTP.Paths {
					to := path.Backend.Service
					a.service(o, namespace, to.Name, intstr.IntOrString{Type: intstr.String, StrVal: to.Port.Name})
				}
			}
		case *gatewayv1.HTTPRoute:
			for _, r := range x.Spec.Rules {
				for _, to := range r.BackendRefs {
					a.service(o, namespace, string(to.Name), intstr.FromInt32(*to.Port))
				}
			}
		case *monitoringv1.ServiceMonitor:
			selector, met := a.selector(o, &x.Spec.Selector), 0
			for _, s := range each[*corev1.Service](a.all) {
				if s.Namespace == namespace && selector.Matches(labels.Set(s.Labels)) {
					met++
					a.service(o, namespace, s.Name, intstr.FromString(x.Spec.Endpoints[0].Port))
				}
			}
			if met != 1 {
				a.t.Errorf("%s: selects %d Services", o, met)
			}
		}
	}
}

// looksSecret are names whose values should not stand in a manifest.
var looksSecret = regexp.MustCompile(`(?i)(password|token|secret|api_?key|headers|credential)`)

func (a auditor) secrets() {
	for _, o := range a.all {
		if _, ok := o.typed.(*corev1.Secret); ok {
			a.t.Errorf("%s: the chart makes a Secret: its value would stand in the release", o)
		}
	}
	for _, p := range a.pods {
		for _, c := range p.spec.Containers {
			for _, e := range c.Env {
				if e.Value != "" && looksSecret.MatchString(e.Name) {
					a.t.Errorf("%s: %s has its value in the manifest", p, e.Name)
				}
			}
		}
	}
}
