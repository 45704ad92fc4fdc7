package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// seen is a copy of an event, for comparison.
type seen struct {
	raw, data, name string
	partial         bool
}

func (s seen) String() string { return fmt.Sprintf("%q %q %q %v", s.raw, s.data, s.name, s.partial) }

// drain reads all events and makes sure that their raw bytes are the stream.
func drain(t testing.TB, e *Events, stream string) ([]seen, error) {
	t.Helper()
	var all []seen
	var raw strings.Builder
	for {
		ev, err := e.Next()
		if err != nil {
			if raw.String() != stream {
				t.Fatalf("the events joined are %q, want %q", raw.String(), stream)
			}
			return all, err
		}
		if len(ev.Raw) == 0 {
			t.Fatal("an event without bytes")
		}
		raw.Write(ev.Raw)
		all = append(all, seen{string(ev.Raw), string(ev.Data), string(ev.Name), ev.Partial})
	}
}

func TestEventsFollowTheStandard(t *testing.T) {
	for name, test := range map[string]struct {
		stream string
		want   []seen
	}{
		"nothing":                   {"", nil},
		"line feeds":                {"data: a\n\ndata: b\n\n", []seen{{"data: a\n\n", "a", "", false}, {"data: b\n\n", "b", "", false}}},
		"both":                      {"data: a\r\n\r\ndata: b\r\n\r\n", []seen{{"data: a\r\n\r\n", "a", "", false}, {"data: b\r\n\r\n", "b", "", false}}},
		"carriage returns":          {"data: a\r\rdata: b\r\r", []seen{{"data: a\r\r", "a", "", false}, {"data: b\r\r", "b", "", false}}},
		"a mixture":                 {"data: a\n\r\ndata: b\r\n\ndata: c\r\n\rdata: d\r\n\n", []seen{{"data: a\n\r\n", "a", "", false}, {"data: b\r\n\n", "b", "", false}, {"data: c\r\n\r", "c", "", false}, {"data: d\r\n\n", "d", "", false}}},
		"one space belongs to it":   {"data:a\n\ndata:  b\n\ndata\n\ndata:\n\n", []seen{{"data:a\n\n", "a", "", false}, {"data:  b\n\n", " b", "", false}, {"data\n\n", "", "", false}, {"data:\n\n", "", "", false}}},
		"several lines":             {"data: a\ndata:b\ndata\ndata:  c\n\n", []seen{{"data: a\ndata:b\ndata\ndata:  c\n\n", "a\nb\n\n c", "", false}}},
		"all fields":                {": hi\nid: 7\r\nevent: error\rretry: 5\ndata: a\nother: x\ndatabase: y\n\n", []seen{{": hi\nid: 7\r\nevent: error\rretry: 5\ndata: a\nother: x\ndatabase: y\n\n", "a", "error", false}}},
		"the last name counts":      {"event: a\nevent: b\ndata\n\n", []seen{{"event: a\nevent: b\ndata\n\n", "", "b", false}}},
		"a comment alone":           {": ping\n\ndata: a\n\n", []seen{{": ping\n\n", "", "", false}, {"data: a\n\n", "a", "", false}}},
		"blank lines":               {"\n\r\n\rdata: a\n\n", []seen{{"\n", "", "", false}, {"\r\n", "", "", false}, {"\r", "", "", false}, {"data: a\n\n", "a", "", false}}},
		"a byte order mark":         {"\ufeffdata: a\n\n\ufeffdata: b\n\n", []seen{{"\ufeffdata: a\n\n", "a", "", false}, {"\ufeffdata: b\n\n", "", "", false}}},
		"a mark and many lines":     {"\ufeffdata: a\ndata: b\n\n", []seen{{"\ufeffdata: a\ndata: b\n\n", "a\nb", "", false}}},
		"a mark before blank":       {"\ufeff\ndata: a\n\n", []seen{{"\ufeff\n", "", "", false}, {"data: a\n\n", "a", "", false}}},
		"the end within a line":     {"data: a\n\ndata: [DO", []seen{{"data: a\n\n", "a", "", false}, {"data: [DO", "[DO", "", true}}},
		"the end behind a line":     {"data: a\r", []seen{{"data: a\r", "a", "", true}}},
		"the end among many lines":  {"data: a\ndata: b", []seen{{"data: a\ndata: b", "a\nb", "", true}}},
		"names with capitals":       {"Data: a\n\n", []seen{{"Data: a\n\n", "", "", false}}},
		"a space before the colon":  {"data : a\n\n", []seen{{"data : a\n\n", "", "", false}}},
		"zero bytes and other dirt": {"data: \x00\xff\xfe\n\n", []seen{{"data: \x00\xff\xfe\n\n", "\x00\xff\xfe", "", false}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := drain(t, NewEvents(strings.NewReader(test.stream), nil), test.stream)
			if err != io.EOF {
				t.Fatal(err)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got  %v\nwant %v", got, test.want)
			}
		})
	}
}

// TestEventsAreTheSameHoweverTheyAreCut reads each recording in two reads, for every place of the cut, and byte by byte, with buffers from
// tiny to ample.
func TestEventsAreTheSameHoweverTheyAreCut(t *testing.T) {
	for name, stream := range recordings(t) {
		t.Run(name, func(t *testing.T) {
			whole, err := drain(t, NewEvents(strings.NewReader(stream), nil), stream)
			if err != io.EOF {
				t.Fatal(err)
			}
			for cut := range len(stream) {
				got, err := drain(t, NewEvents(io.MultiReader(strings.NewReader(stream[:cut]), strings.NewReader(stream[cut:])), make([]byte, 512)), stream)
				if err != io.EOF || !sameEvents(got, whole) {
					t.Fatalf("cut at %d: %v\n%v", cut, err, got)
				}
			}
			for _, size := range []int{1, 7, 64, 1024} {
				got, err := drain(t, NewEvents(iotest.OneByteReader(strings.NewReader(stream)), make([]byte, size)), stream)
				if err != io.EOF || !sameEvents(got, whole) {
					t.Fatalf("byte by byte into %d: %v", size, err)
				}
				got, err = drain(t, NewEvents(iotest.DataErrReader(strings.NewReader(stream)), make([]byte, size)), stream)
				if err != io.EOF || !sameEvents(got, whole) {
					t.Fatalf("the end with the last bytes, into %d: %v", size, err)
				}
			}
		})
	}
}

// sameEvents compares what events mean. Their raw bytes may differ by a line feed that came too late for the event that it ends.
func sameEvents(a, b []seen) bool {
	meaning := func(all []seen) []seen {
		var out []seen
		for _, s := range all {
			s.raw = ""
			if s != (seen{partial: true}) { // a line feed that came as the very last byte
				out = append(out, s)
			}
		}
		return out
	}
	return slices.Equal(meaning(a), meaning(b))
}

// recordings are streams in the shapes of well-known engines.
func recordings(t testing.TB) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.sse")
	if err != nil || len(paths) == 0 {
		t.Fatal("no recordings", err)
	}
	all := map[string]string{}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(path), ".sse")] = string(content)
	}
	return all
}

// TestEventsDoNotWait makes sure that an event is there as soon as its blank line is, whatever ends its lines.
func TestEventsDoNotWait(t *testing.T) {
	for name, end := range map[string]string{"line feeds": "\n\n", "both": "\r\n\r\n", "carriage returns": "\r\r", "a mixture": "\n\r"} {
		t.Run(name, func(t *testing.T) {
			r, w := io.Pipe()
			defer r.Close()
			events := NewEvents(r, nil)
			for _, text := range []string{"a", "b", "c"} {
				event := "data: " + text + end
				go func() { _, _ = w.Write([]byte(event)) }()
				ev, err := events.Next() // It would hang if it waited for more.
				if err != nil || string(ev.Data) != text || string(ev.Raw) != event {
					t.Fatalf("%q, %v", ev.Raw, err)
				}
			}
		})
	}
}

// TestEventsOweALineFeed is about the LF of a CR LF that comes when the CR has already ended its event: it begins the next one. Where
// all lines end in CR LF, the event waits for it.
func TestEventsOweALineFeed(t *testing.T) {
	for stream, want := range map[string][]seen{
		"data: a\n\r\ndata: b\n\r\n":     {{"data: a\n\r", "a", "", false}, {"\ndata: b\n\r", "b", "", false}, {"\n", "", "", true}},
		"data: a\r\n\r\ndata: b\r\n\r\n": {{"data: a\r\n\r\n", "a", "", false}, {"data: b\r\n\r\n", "b", "", false}},
		"data: a\r\n\r":                  {{"data: a\r\n\r", "a", "", false}},
		"data: a\r\n\r\n\r\n\rdata: b":   {{"data: a\r\n\r\n", "a", "", false}, {"\r\n", "", "", false}, {"\r", "", "", false}, {"data: b", "b", "", true}},
	} {
		got, err := drain(t, NewEvents(iotest.OneByteReader(strings.NewReader(stream)), nil), stream)
		if err != io.EOF || !slices.Equal(got, want) {
			t.Errorf("got  %v, %v\nwant %v", got, err, want)
		}
	}
}

func TestBufferedTellsWhetherNextMustRead(t *testing.T) {
	reads := 0
	parts := []string{"data: a\n\ndata: b\n\ndata", ": c\n\n"}
	events := NewEvents(readerFunc(func(p []byte) (int, error) {
		if reads == len(parts) {
			return 0, io.EOF
		}
		reads++
		return copy(p, parts[reads-1]), nil
	}), nil)
	if events.Buffered() || reads != 0 {
		t.Fatal("something is buffered before the first read")
	}
	for i, want := range []struct {
		data     string
		reads    int
		buffered bool
	}{{"a", 1, true}, {"b", 1, false}, {"c", 2, false}} {
		ev, err := events.Next()
		buffered := events.Buffered()
		if err != nil || string(ev.Data) != want.data || reads != want.reads || buffered != want.buffered {
			t.Errorf("event %d: %q after %d reads, buffered %v, %v", i, ev.Data, reads, buffered, err)
		}
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestEventsGrowForALargeEventOnly(t *testing.T) {
	large := "data: " + strings.Repeat("x", 300<<10) + "\n\n"
	stream := strings.Repeat("data: a\n\n", 100) + large + strings.Repeat("data: b\n\n", 100)
	home := make([]byte, 4<<10)
	events := NewEvents(strings.NewReader(stream), home)
	all, err := drain(t, events, stream)
	if err != io.EOF || len(all) != 201 || len(all[100].data) != 300<<10 {
		t.Fatalf("%d events, %v", len(all), err)
	}
	if &events.buf[0] != &home[0] {
		t.Error("the large buffer is kept")
	}
}

func TestEventsAreBounded(t *testing.T) {
	for name, stream := range map[string]string{
		"a line without end":    strings.Repeat("x", 100_000),
		"lines without a blank": strings.Repeat("data: x\n", 20_000),
	} {
		t.Run(name, func(t *testing.T) {
			events := NewEvents(strings.NewReader("data: a\n\n"+stream), nil)
			events.limit = 64 << 10
			if _, err := events.Next(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if ev, err := events.Next(); !errors.Is(err, ErrEventTooLarge) {
					t.Fatalf("%d bytes, %v", len(ev.Raw), err)
				}
			}
		})
	}
}

func TestEventsPassTheReadersErrorOn(t *testing.T) {
	events := NewEvents(io.MultiReader(strings.NewReader("data: a\n\ndata: b"), iotest.ErrReader(io.ErrUnexpectedEOF)), nil)
	all, err := drain(t, events, "data: a\n\ndata: b")
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(all) != 2 || !all[1].partial {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := events.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("then %v", err)
	}
	idle := NewEvents(readerFunc(func([]byte) (int, error) { return 0, nil }), nil)
	if _, err := idle.Next(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that gives nothing: %v", err)
	}
}

func TestEventsAllocateNothing(t *testing.T) {
	stream := strings.Repeat(benchEvent, 400)
	r := strings.NewReader(stream)
	events := NewEvents(r, make([]byte, 4<<10))
	if allocs := testing.AllocsPerRun(300, func() {
		if _, err := events.Next(); err != nil {
			t.Error(err)
		}
	}); allocs != 0 {
		t.Errorf("%v allocations an event", allocs)
	}
}

func FuzzEvents(f *testing.F) {
	for _, stream := range recordings(f) {
		f.Add([]byte(stream), uint16(len(stream)/2), uint8(64))
	}
	f.Add([]byte("\ufeff\r\r\n\rdata\r\n\n: x\r\rdata: \r\ndata: y\n\r\n"), uint16(3), uint8(1))
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16, size uint8) {
		at := min(int(cut), len(stream))
		whole, err := drain(t, NewEvents(bytes.NewReader(stream), nil), string(stream))
		if err != io.EOF {
			t.Fatal(err)
		}
		got, err := drain(t, NewEvents(io.MultiReader(bytes.NewReader(stream[:at]), bytes.NewReader(stream[at:])), make([]byte, size)), string(stream))
		if err != io.EOF || !sameEvents(got, whole) {
			t.Fatalf("cut at %d: %v\ngot  %v\nwant %v", at, err, got, whole)
		}
		for i, s := range whole {
			if s.partial != (i == len(whole)-1 && !endsBlank(stream)) {
				t.Fatalf("event %d of %d is partial: %v", i, len(whole), s.partial)
			}
		}
	})
}

// endsBlank reports whether a stream ends with a blank line.
func endsBlank(stream []byte) bool {
	lines := strings.ReplaceAll(strings.ReplaceAll(strings.TrimPrefix(string(stream), "\ufeff"), "\r\n", "\n"), "\r", "\n")
	return lines == "\n" || strings.HasSuffix(lines, "\n\n")
}
