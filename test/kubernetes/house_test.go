package kubernetes

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ai-aas/api-router/test/rig"
)

const (
	root  = "../.."
	chart = root + "/deploy/helm/api-router"
	// release is what the chart is installed as here.
	release = "api-router"
)

// binary is the router, built once for all tests.
var binary string

func TestMain(m *testing.M) { os.Exit(rig.Main(m, &binary)) }

// helm runs Helm, whose home is a folder of its own.
func helm(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), rig.Tool(t, "helm"), args...)
	home := t.TempDir()
	c.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG="+filepath.Join(home, "none"))
	var out, complaint bytes.Buffer
	c.Stdout, c.Stderr = &out, &complaint
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("helm %s: %w: %s", args[0], err, complaint.String())
	}
	return out.String(), nil
}

// values is one way to install the chart.
type values struct {
	name      string
	namespace string
	file      string            // beside values.yaml, "" for none
	sets      []string          // as in --set
	external  []string          // "Kind namespace/name" that the values expect to be there already
	text      map[string]string // files, as in --set-file
}

// args are those of helm template and helm lint.
func (v values) args(t *testing.T) []string {
	t.Helper()
	args := []string{"--namespace", v.namespace, "--kube-version", "1.37.0"}
	if v.file != "" {
		args = append(args, "--values", filepath.Join(chart, v.file))
	}
	for _, s := range v.sets {
		args = append(args, "--set", s)
	}
	for key, content := range v.text {
		file := filepath.Join(t.TempDir(), "value")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--set-file", key+"="+file)
	}
	return args
}

// object is one rendered object.
type object struct {
	metav1.Object

	typed runtime.Object
	kind  string
	hook  string // helm.sh/hook
}

func (o object) String() string {
	return fmt.Sprintf("%s %s/%s", o.kind, o.GetNamespace(), o.GetName())
}

// objects are all that one installation makes.
type objects []object

// strict reads what an API server would store, and refuses what it would drop or what stands there twice.
var strict = func() runtime.Decoder {
	known := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, monitoringv1.AddToScheme, gatewayv1.Install} {
		if err := add(known); err != nil {
			panic(err)
		}
	}
	return serializer.NewCodecFactory(known, serializer.EnableStrict).UniversalDeserializer()
}()

// render renders the chart and decodes each object strictly.
func render(t *testing.T, v values) objects {
	t.Helper()
	out, err := helm(t, append([]string{"template", release, chart}, v.args(t)...)...)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, out)
}

func decode(t *testing.T, text string) objects {
	t.Helper()
	var all objects
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		part, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimSpace(stripComments(part))) == 0 {
			continue
		}
		typed, kind, err := strict.Decode(part, nil, nil)
		if err != nil {
			t.Errorf("%v in\n%s", err, part)
			continue
		}
		accessor, err := meta.Accessor(typed)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, object{accessor, typed, kind.Kind, accessor.GetAnnotations()["helm.sh/hook"]})
	}
}

func stripComments(part []byte) []byte {
	lines := bytes.Split(part, []byte("\n"))
	return bytes.Join(slices.DeleteFunc(lines, func(l []byte) bool { return bytes.HasPrefix(l, []byte("#")) || bytes.Equal(l, []byte("---")) }), []byte("\n"))
}

// get is the object of a type with this name; there has to be one.
func get[T runtime.Object](t *testing.T, all objects, name string) T {
	t.Helper()
	for _, o := range all {
		if typed, ok := o.typed.(T); ok && o.GetName() == name {
			return typed
		}
	}
	var none T
	t.Fatalf("there is no %T %s", none, name)
	return none
}

// each are the objects of a type.
func each[T runtime.Object](all objects) []T {
	var found []T
	for _, o := range all {
		if typed, ok := o.typed.(T); ok {
			found = append(found, typed)
		}
	}
	return found
}

// command runs the router once, as a person would.
func command(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), binary, args...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	text, err := c.CombinedOutput()
	return string(text), err
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
