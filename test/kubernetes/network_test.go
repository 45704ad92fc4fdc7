package kubernetes

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// place is a pod for network policies: its namespace, which has its own name as a label, its labels and its ports by name.
type place struct {
	namespace string
	labels    labels.Set
	ports     map[string]int32
}

func matches(t *testing.T, s *metav1.LabelSelector, set labels.Set) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return selector.Matches(set)
}

// peer reports whether one of the peers is the place; no peers are everybody.
func peer(t *testing.T, peers []networkingv1.NetworkPolicyPeer, namespace string, at place) bool {
	t.Helper()
	return len(peers) == 0 || slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool {
		here := at.namespace == namespace
		if p.NamespaceSelector != nil {
			here = matches(t, p.NamespaceSelector, labels.Set{"kubernetes.io/metadata.name": at.namespace})
		}
		return p.IPBlock == nil && here && (p.PodSelector == nil || matches(t, p.PodSelector, at.labels))
	})
}

// port reports whether one of the ports is meant; no ports are all. Names are those of the pod that is reached.
func port(ports []networkingv1.NetworkPolicyPort, at place, number int32, protocol corev1.Protocol) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		if own := p.Protocol; own != nil && *own != protocol || own == nil && protocol != corev1.ProtocolTCP {
			return false
		}
		return p.Port == nil || p.Port.StrVal == "" && p.Port.IntVal == number || p.Port.StrVal != "" && at.ports[p.Port.StrVal] == number
	})
}

// reaches reports whether the policies let one pod talk to another: each direction that some policy of a pod is about needs a rule.
func reaches(t *testing.T, policies []*networkingv1.NetworkPolicy, from, to place, number int32, protocol corev1.Protocol) bool {
	t.Helper()
	closedOut, out, closedIn, in := false, false, false, false
	for _, p := range policies {
		about := func(at place, direction networkingv1.PolicyType) bool {
			return p.Namespace == at.namespace && matches(t, &p.Spec.PodSelector, at.labels) && slices.Contains(p.Spec.PolicyTypes, direction)
		}
		if about(from, networkingv1.PolicyTypeEgress) {
			closedOut = true
			for _, r := range p.Spec.Egress {
				out = out || peer(t, r.To, p.Namespace, to) && port(r.Ports, to, number, protocol)
			}
		}
		if about(to, networkingv1.PolicyTypeIngress) {
			closedIn = true
			for _, r := range p.Spec.Ingress {
				in = in || peer(t, r.From, p.Namespace, from) && port(r.Ports, to, number, protocol)
			}
		}
	}
	return (!closedOut || out) && (!closedIn || in)
}

// places are the pods of an installation by their component.
func places(all objects) map[string]place {
	found := map[string]place{}
	for _, p := range pods(all) {
		at := place{p.GetNamespace(), p.labels, map[string]int32{}}
		for _, c := range p.spec.Containers {
			for _, own := range c.Ports {
				at.ports[own.Name] = own.ContainerPort
			}
		}
		found[p.labels["app.kubernetes.io/component"]] = at
	}
	return found
}

func TestTheNetworkPolicyAllowsWhatIsNeededAndNothingElse(t *testing.T) {
	all := render(t, installation("development"))
	closed := installation("development")
	closed.sets = []string{"networkPolicy.clients[0].podSelector.matchLabels.app=shop"}
	narrow := each[*networkingv1.NetworkPolicy](render(t, closed))
	policies, at := each[*networkingv1.NetworkPolicy](all), places(all)
	at["stranger"] = place{namespace: "development", labels: labels.Set{"app": "stranger"}}
	at["shop"] = place{namespace: "development", labels: labels.Set{"app": "shop"}}
	at["prometheus"] = place{namespace: "monitoring", labels: labels.Set{"app": "prometheus"}}
	at["dns"] = place{namespace: "kube-system", labels: labels.Set{"k8s-app": "kube-dns"}}
	for _, c := range []struct {
		from, to string
		port     int32
		protocol corev1.Protocol
		open     bool // with the development values
		narrow   bool // where clients are named
	}{
		{"router", "policy-source", 2379, corev1.ProtocolTCP, true, true},
		{"router", "collector", 4317, corev1.ProtocolTCP, true, true},
		{"router", "engine", 8000, corev1.ProtocolTCP, true, true},
		{"router", "dns", 53, corev1.ProtocolUDP, true, true},
		{"router", "dns", 53, corev1.ProtocolTCP, true, true},
		{"router", "dns", 443, corev1.ProtocolTCP, false, false},
		{"router", "stranger", 80, corev1.ProtocolTCP, false, false},
		{"router", "prometheus", 9090, corev1.ProtocolTCP, false, false},
		{"seed", "policy-source", 2379, corev1.ProtocolTCP, true, true},
		{"stranger", "policy-source", 2379, corev1.ProtocolTCP, false, false},
		{"test", "policy-source", 2379, corev1.ProtocolTCP, false, false},
		{"test", "router", 8080, corev1.ProtocolTCP, true, true},
		{"stranger", "router", 8080, corev1.ProtocolTCP, true, false},
		{"shop", "router", 8080, corev1.ProtocolTCP, true, true},
		{"prometheus", "router", 9464, corev1.ProtocolTCP, true, true},
		{"stranger", "router", 9464, corev1.ProtocolTCP, false, false},
		{"stranger", "router", 8082, corev1.ProtocolTCP, false, false},
	} {
		for name, what := range map[string]struct {
			policies []*networkingv1.NetworkPolicy
			want     bool
		}{"open": {policies, c.open}, "narrow": {narrow, c.narrow}} {
			if got := reaches(t, what.policies, at[c.from], at[c.to], c.port, c.protocol); got != what.want {
				t.Errorf("%s: %s to %s at %d (%s): allowed is %v", name, c.from, c.to, c.port, c.protocol, got)
			}
		}
	}
}

// Where etcd, the collector and the backends are of somebody else, a rule of the values lets the router get to each that it is told of.
func TestTheNetworkPolicyLetsTheRouterGetToEverythingThatItIsToldOf(t *testing.T) {
	for _, v := range installations {
		all := render(t, v)
		policies := each[*networkingv1.NetworkPolicy](all)
		if len(policies) == 0 {
			continue
		}
		at := places(all)
		told := addresses(t, v, all)
		if len(told) < 3 {
			t.Errorf("%s: the router is told of %v alone", v.name, told)
		}
		for _, address := range told {
			host, number, err := net.SplitHostPort(address)
			if err != nil {
				t.Errorf("%s: %v", v.name, err)
				continue
			}
			name, rest, _ := strings.Cut(host, ".")
			to := place{namespace: strings.Split(rest+".", ".")[0], labels: labels.Set{"app.kubernetes.io/name": strings.TrimSuffix(name, "-service")}}
			if to.namespace == "" {
				to.namespace = v.namespace
			}
			for _, s := range each[*corev1.Service](all) { // One that the chart brings: the pods behind it.
				if s.Name == name && s.Namespace == to.namespace {
					to = at[s.Spec.Selector["app.kubernetes.io/component"]]
				}
			}
			n, err := strconv.ParseInt(number, 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			if !reaches(t, policies, at["router"], to, int32(n), corev1.ProtocolTCP) {
				t.Errorf("%s: the router cannot get to %s", v.name, address)
			}
		}
	}
}

// addresses are those that the configuration, the variables and the documents tell the router of.
func addresses(t *testing.T, v values, all objects) []string {
	t.Helper()
	var told []string
	add := func(text string) {
		if u, err := url.Parse(text); err == nil && u.Host != "" {
			text = u.Host
		}
		told = append(told, text)
	}
	_, config := configuration(t, all)
	if etcd, ok := config["policy"].(map[string]any)["etcd"].(map[string]any); ok {
		for _, e := range etcd["endpoints"].([]any) {
			add(e.(string))
		}
	}
	for _, e := range router(t, all).Spec.Template.Spec.Containers[0].Env {
		if e.Name == "OTEL_EXPORTER_OTLP_ENDPOINT" {
			add(e.Value)
		}
	}
	for _, c := range each[*corev1.ConfigMap](all) {
		if !strings.HasSuffix(c.Name, "-documents") {
			continue
		}
		for _, content := range c.Data {
			for document := range strings.SplitSeq(content, "\n---\n") {
				var d struct{ Kind, URL string }
				if err := yaml.Unmarshal([]byte(document), &d); err != nil {
					t.Fatalf("%s: %v", v.name, err)
				}
				if d.Kind == "Backend" {
					add(d.URL)
				}
			}
		}
	}
	return told
}
