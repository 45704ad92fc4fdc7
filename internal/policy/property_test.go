package policy

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// A file of the model is what its documents would be if they could be read: by id, the version, and whether the text is good.
type modelFile struct {
	versions map[string]int
	broken   map[string]bool // the document has a wrong value
	garbled  bool            // a further document in the file cannot be parsed at all
}

func (f modelFile) text() string {
	text := ""
	for _, id := range slices.Sorted(maps.Keys(f.versions)) {
		text += fmt.Sprintf("---\nkind: Backend\nid: %s\nurl: http://h\nmax_concurrency: %d\n", id, f.versions[id])
		if f.broken[id] {
			text += "colour: red\n"
		}
	}
	if f.garbled {
		text += "---\nkind: [\n"
	}
	return text
}

// Whatever happens to files, the table is that of the documents that are good now, and of the last good versions of
// those that are there and bad, or perhaps there and unreadable.
func TestAnySequenceOfChangesEndsInTheExpectedTable(t *testing.T) {
	parent, runs := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := filepath.Join(parent, strconv.Itoa(runs))
		must(t, os.Mkdir(dir, 0o700))
		files := map[string]modelFile{}
		type version struct {
			number int
			file   string
		}
		expected := map[string]version{} // what serves, and from which file
		var last []Document
		versions := 0
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "file")
			if rapid.IntRange(0, 4).Draw(t, "remove") == 0 {
				delete(files, name)
				must(t, os.RemoveAll(filepath.Join(dir, name+".yaml")))
			} else {
				f := modelFile{map[string]int{}, map[string]bool{}, rapid.IntRange(0, 3).Draw(t, "garbled") == 0}
				for i := range rapid.IntRange(0, 3).Draw(t, "documents") {
					id := fmt.Sprintf("%s%d", name, i) // Ids do not clash between files.
					versions++
					f.versions[id] = versions
					f.broken[id] = rapid.IntRange(0, 3).Draw(t, "broken") == 0
				}
				files[name] = f
				must(t, os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(f.text()), 0o600))
			}

			now, err := Load(dir)
			must(t, err)
			table := Compile(now, last)
			last = table.documents

			next := map[string]version{}
			for id, was := range expected {
				f, there := files[was.file]
				if _, listed := f.versions[id]; there && (listed && f.broken[id] || f.garbled) {
					next[id] = was
				}
			}
			for name, f := range files {
				for id, number := range f.versions {
					if !f.broken[id] {
						next[id] = version{number, name}
					}
				}
			}
			expected = next
			got := map[string]int{}
			for _, b := range table.Backends() {
				got[b.ID] = b.MaxConcurrency
			}
			want := map[string]int{}
			for id, v := range expected {
				want[id] = v.number
			}
			if !maps.Equal(got, want) {
				t.Fatalf("got %v, want %v", got, want)
			}
			if fresh := Compile(Snapshot{Documents: last}, nil); fresh.Revision() != table.Revision() {
				t.Fatal("a fresh load of what is served differs")
			}
		}
	})
}
