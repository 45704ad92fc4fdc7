package upstream

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// MalformedError says that a backend's answer breaks HTTP/1.1, or a bound of ours. Nothing of such an answer is used,
// and its connection is closed.
type MalformedError struct {
	What string
}

func (e *MalformedError) Error() string { return "malformed answer: " + e.What }

func malformed(what string) error { return &MalformedError{What: what} }

// framing says how far an answer's body reaches.
type framing uint8

const (
	bodyNone framing = iota
	bodySized
	bodyChunked
	bodyUntilClose
)

// head is what the connection has to know of an answer's head.
type head struct {
	framing framing
	length  int64
	// keep: the peer will take another request on the same connection.
	keep bool
}

// fields counts what frames an answer, and is where each such field may stand only once.
type fields struct {
	length  string
	lengths int
	codings int
	close   bool
}

const (
	statusLine = "HTTP/1.x 200"
	maxFields  = 256
)

// headStart refuses what cannot become a status line, as early as its first bytes show it.
func headStart(b []byte) error {
	const proto = "HTTP/1."
	if n := min(len(b), len(proto)); string(b[:n]) != proto[:n] {
		return malformed("it does not begin with HTTP/1")
	}
	return nil
}

// headEnd looks for the end of a head in b, of which the first seen bytes were looked at before. It returns the length
// of the head, or 0 when the end has not come yet. Each line has to end in CR LF.
func headEnd(b []byte, seen int) (int, error) {
	for {
		i := bytes.IndexByte(b[seen:], '\n')
		if i < 0 {
			return 0, nil
		}
		i += seen
		switch {
		case i == 0 || b[i-1] != '\r':
			return 0, malformed("a line of the head does not end in CR LF")
		case i >= 3 && b[i-2] == '\n':
			return i + 1, nil
		}
		seen = i + 1
	}
}

// parseHead reads a complete head, its blank line included, into r. It writes the canonical form of the fields' names
// into b. The texts of r share one string.
func parseHead(b []byte, r *http.Response) (head, error) {
	start := bytes.IndexByte(b, '\n') + 1
	if err := parseStatus(b[:start-2], r); err != nil {
		return head{}, err
	}
	count, err := canonize(b[start : len(b)-2])
	if err != nil {
		return head{}, err
	}
	text := string(b)
	r.Proto, r.Status = text[:8], text[9:start-2]
	var f fields
	r.Header, err = parseFields(text[start:len(text)-2], count, &f)
	if err != nil {
		return head{}, err
	}
	return frame(r, &f)
}

// parseStatus reads "HTTP/1.1 200 OK". The reason and the space before it may be missing.
func parseStatus(line []byte, r *http.Response) error {
	if len(line) < len(statusLine) || string(line[:7]) != "HTTP/1." || line[7] != '1' && line[7] != '0' || line[8] != ' ' ||
		len(line) > len(statusLine) && line[len(statusLine)] != ' ' {
		return malformed("the status line")
	}
	if slices.ContainsFunc(line, isControl) {
		return malformed("a control character in the status line")
	}
	status := 0
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return malformed("the status")
		}
		status = status*10 + int(c-'0')
	}
	if status < 100 || status > 599 {
		return malformed("the status is none that HTTP knows")
	}
	r.StatusCode, r.ProtoMajor, r.ProtoMinor = status, 1, int(line[7]-'0')
	return nil
}

// canonize checks the lines of a head's fields, writes their names the way http.Header has them and counts them.
func canonize(b []byte) (count int, err error) {
	for len(b) > 0 {
		upper := true
		i := 0
		for ; b[i] != ':'; i++ { // Each line ends in CR LF, so this ends.
			low := tokens[b[i]]
			if low == 0 {
				return 0, malformed("a header's name, or a folded header")
			}
			if upper && 'a' <= low && low <= 'z' {
				b[i] = low &^ 0x20
			} else {
				b[i] = low
			}
			upper = low == '-'
		}
		if i == 0 {
			return 0, malformed("a header without a name")
		}
		for !isControl(b[i]) {
			i++
		}
		if b[i] != '\r' || b[i+1] != '\n' {
			return 0, malformed("a control character in a header's value")
		}
		b = b[i+2:]
		if count++; count > maxFields {
			return 0, malformed("too many headers")
		}
	}
	return count, nil
}

// parseFields makes a Header of lines that canonize has passed. Fields that concern only the connection stay out of it.
func parseFields(text string, count int, f *fields) (http.Header, error) {
	header := make(http.Header, count)
	values := make([]string, count)
	for text != "" {
		name, rest, _ := strings.Cut(text, ":")
		value, next, _ := strings.Cut(rest, "\r\n")
		text = next
		value = trim(value)
		keep, err := f.add(name, value)
		if err != nil {
			return nil, err
		}
		if !keep {
			continue
		}
		if old, ok := header[name]; ok {
			header[name] = append(old, value)
			continue
		}
		values[0] = value
		header[name] = values[:1:1]
		values = values[1:]
	}
	return header, nil
}

// add notes what a field says about the framing, and reports whether it is for the caller as well.
func (f *fields) add(name, value string) (keep bool, err error) {
	switch name {
	case "Content-Length":
		f.lengths++
		if f.lengths > 1 && value != f.length {
			return false, malformed("two Content-Lengths that differ")
		}
		f.length = value
		return f.lengths == 1, nil
	case "Transfer-Encoding":
		if f.codings++; f.codings > 1 || !strings.EqualFold(value, "chunked") {
			return false, malformed("a Transfer-Encoding other than chunked")
		}
		return false, nil
	case "Connection":
		for token := range strings.SplitSeq(value, ",") {
			f.close = f.close || strings.EqualFold(trim(token), "close")
		}
		return false, nil
	case "Trailer":
		for token := range strings.SplitSeq(value, ",") {
			if isFraming(http.CanonicalHeaderKey(trim(token))) {
				return false, malformed("a trailer that would frame the answer")
			}
		}
		return false, nil
	case "Keep-Alive":
		return false, nil
	}
	return true, nil
}

// isFraming reports a field that says where a message ends. Its name is in the canonical form.
func isFraming(name string) bool {
	return name == "Content-Length" || name == "Transfer-Encoding" || name == "Trailer"
}

func trim(s string) string { return strings.Trim(s, " \t") }

// chunkedCoding is what every chunked answer's TransferEncoding refers to.
var chunkedCoding = []string{"chunked"}

// frame decides where the body ends. Whatever two readers could see in two ways is refused.
func frame(r *http.Response, f *fields) (head, error) {
	h := head{keep: !f.close && r.ProtoMinor == 1}
	length := int64(-1)
	if f.lengths > 0 {
		n, err := strconv.ParseUint(f.length, 10, 63)
		if err != nil {
			return head{}, malformed("the Content-Length")
		}
		length = int64(n)
	}
	bodyless := r.StatusCode < http.StatusOK || r.StatusCode == http.StatusNoContent || r.StatusCode == http.StatusNotModified
	switch {
	case f.codings > 0 && f.lengths > 0:
		return head{}, malformed("both a Content-Length and a Transfer-Encoding")
	case f.codings > 0 && (bodyless || r.ProtoMinor == 0):
		return head{}, malformed("a Transfer-Encoding where none may be")
	case length > 0 && bodyless && r.StatusCode != http.StatusNotModified:
		return head{}, malformed("a Content-Length where no body may be")
	case bodyless:
		r.Body = http.NoBody
	case f.codings > 0:
		h.framing, r.ContentLength, r.TransferEncoding = bodyChunked, -1, chunkedCoding
	case length < 0:
		h.framing, h.keep, r.ContentLength = bodyUntilClose, false, -1
	case length == 0:
		r.Body = http.NoBody
	default:
		h.framing, h.length, r.ContentLength = bodySized, length, length
	}
	r.Close = !h.keep
	return h, nil
}

// unexpected makes the end of a connection an error wherever an answer has not ended.
func unexpected(err error) error {
	if err == io.EOF { //nolint:errorlint // Readers return it as it is.
		return io.ErrUnexpectedEOF
	}
	return err
}
