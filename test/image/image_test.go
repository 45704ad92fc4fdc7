package image

import (
	"archive/tar"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"errors"
	"go/version"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// descriptor is what an image's index, manifest and configuration say of each other.
type descriptor struct {
	Digest string
	Size   int64
}

// pushed is the image as a registry would get it: its layers compressed.
func pushed(t *testing.T, s *shop) (dir string, layers []descriptor) {
	t.Helper()
	dir = t.TempDir()
	if out, err := s.run(t, "buildah", "push", "--format", "oci", name, "oci:"+dir+":latest"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var index struct{ Manifests []descriptor }
	readJSON(t, filepath.Join(dir, "index.json"), &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("there are %d manifests, want 1", len(index.Manifests))
	}
	var manifest struct{ Layers []descriptor }
	readJSON(t, blob(dir, index.Manifests[0]), &manifest)
	if len(manifest.Layers) == 0 {
		t.Fatal("there is no layer")
	}
	return dir, manifest.Layers
}

func blob(dir string, d descriptor) string {
	return filepath.Join(dir, "blobs", strings.ReplaceAll(d.Digest, ":", "/"))
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(content, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func TestTheImageIsSmallAndHoldsOneStaticBinary(t *testing.T) {
	s := open(t)
	dir, layers := pushed(t, s)
	var size int64
	var files, directories []string
	binary := filepath.Join(t.TempDir(), "api-router")
	for _, layer := range layers {
		size += layer.Size
		f, err := os.Open(blob(dir, layer))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		plain, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		for archive := tar.NewReader(plain); ; {
			h, err := archive.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			path := "/" + strings.Trim(h.Name, "/")
			switch {
			case h.Typeflag == tar.TypeDir:
				directories = append(directories, path)
				if path == "/var/lib/api-router" && (h.Uid != 65532 || h.Gid != 65532) {
					t.Errorf("%s belongs to %d:%d, want 65532:65532, or a volume there could not be written", path, h.Uid, h.Gid)
				}
				continue
			case h.Typeflag != tar.TypeReg, h.Mode&0o6022 != 0:
				t.Errorf("%s has type %q and mode %o: no link, no device, nothing that others write, no change of user", path, h.Typeflag, h.Mode)
			}
			files = append(files, path)
			if path == "/api-router" {
				if h.Uid != 0 {
					t.Errorf("%s belongs to user %d, who could change it", path, h.Uid)
				}
				out, err := os.Create(binary)
				if err == nil {
					_, err = io.Copy(out, archive)
				}
				if err := errors.Join(err, out.Close()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	slices.Sort(files)
	if !slices.Equal(files, []string{"/api-router", "/var/lib/api-router/README"}) || !slices.Contains(directories, "/var/lib/api-router") {
		t.Errorf("the image holds %v and %v", files, directories)
	}
	t.Logf("compressed: %.2f MiB (promised %d MiB)", float64(size)/(1<<20), largestSize>>20)
	if size > largestSize {
		t.Errorf("the image has %d bytes", size)
	}
	program, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC }) {
		t.Error("the binary asks for a dynamic linker, which the image does not have")
	}
}

func TestTheImageSaysWhoItIsAndHowToAskForItsHealth(t *testing.T) {
	s := open(t)
	out, err := s.podman(t, "inspect", name)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var all []struct {
		Config struct {
			User, StopSignal string
			Entrypoint, Cmd  []string
			ExposedPorts     map[string]any
			Volumes          map[string]any
			Labels           map[string]string
		}
		Healthcheck struct {
			Test              []string
			Interval, Timeout time.Duration
		}
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	image := all[0]
	if c := image.Config; c.User != "65532:65532" || c.StopSignal != "SIGTERM" || !slices.Equal(c.Entrypoint, []string{"/api-router"}) ||
		!slices.Equal(c.Cmd, []string{"serve"}) || len(c.ExposedPorts) != 2 || len(c.Volumes) != 0 {
		t.Errorf("got %+v", c)
	}
	for _, port := range []string{"8080/tcp", "9464/tcp"} {
		if _, ok := image.Config.ExposedPorts[port]; !ok {
			t.Errorf("port %s is not exposed", port)
		}
	}
	for _, label := range []string{"title", "description", "url", "source", "documentation", "licenses", "version"} {
		if image.Config.Labels["org.opencontainers.image."+label] == "" {
			t.Errorf("it has no %s", label)
		}
	}
	if said, _ := s.podman(t, append(append([]string{"run", "--rm"}, strict...), name, "version")...); !strings.Contains(said, image.Config.Labels["org.opencontainers.image.version"]) {
		t.Errorf("its label says %q and its binary %q", image.Config.Labels["org.opencontainers.image.version"], said)
	}
	if h := image.Healthcheck; !slices.Equal(h.Test, []string{"CMD", "/api-router", "doctor", "--local"}) || h.Timeout <= 2*time.Second || h.Interval < h.Timeout {
		t.Errorf("its health check is %+v; it has to leave the doctor its two seconds", h)
	}
}

func TestBuildahBuildsTheSameImageAsPodman(t *testing.T) {
	s := open(t)
	const other = "localhost/api-router:by-buildah"
	if out, err := s.run(t, "env", "ENGINE=buildah", root+"/scripts/image", other); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var configs [2]string
	for i, n := range []string{name, other} {
		out, err := s.podman(t, "inspect", "--format", "{{json .Config}} {{json .HealthCheck}}", n)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		configs[i] = out
	}
	if configs[0] != configs[1] {
		t.Errorf("podman:  %s\nbuildah: %s", configs[0], configs[1])
	}
	if out, err := s.podman(t, append(append([]string{"run", "--rm"}, strict...), other, "version")...); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestTheImageIsCompiledByAGoThatTheModuleAccepts(t *testing.T) {
	find := func(file, pattern string) string {
		content, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(pattern).FindSubmatch(content)
		if found == nil {
			t.Fatalf("%s has no %s", file, pattern)
		}
		return "go" + string(found[1])
	}
	module, compiler := find("go.mod", `(?m)^go (\S+)$`), find("deploy/image/Containerfile", `(?m)^ARG GO_VERSION=(\S+)$`)
	if version.Compare(compiler, module) < 0 || version.Lang(compiler) != version.Lang(module) {
		t.Errorf("go.mod wants %s, the image is compiled by %s", module, compiler)
	}
}
