package auth

import (
	"bufio"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"time"

	"github.com/ai-aas/api-router/internal/disk"
)

// The file has a head of fixed length and a body of records. The head is written anew in its place when the ledger has stood behind what is in
// the body once more; the body is only ever written with a new file. Both are kept from being changed by HMAC-SHA256, under a key derived from
// the live pepper and the name of the book: who can write the file cannot add a key to it. No number in it is larger than a file that belongs to us
// may have.
const (
	fileMagic = "arkeys02"
	// earlierMagic is of a version that knew neither books nor positions. Such a file is read, and replaced as soon as there is another.
	earlierMagic = "arkeys01"
	macLength    = sha256.Size
	// A head is the magic, the pepper's version, the time in Unix milliseconds, the body's length, the ledger's position, the body's MAC and the MAC of
	// all that. earlierLength is that of the earlier version's, which has no position.
	headLength    = 8 + 8 + 8 + 8 + 8 + macLength + macLength
	earlierLength = headLength - 8
	// maxFilePart bounds one length within the body, in bytes.
	maxFilePart = 1 << 20
)

// The records of the body. Grants are numbered as they come.
const (
	recordGrant = 'g' // its length and JSON
	recordKey   = 'k' // digest, id, expires, grant, pepper, flags; then a sealed secret, where flagged
	recordOff   = 'o' // the length and id of an organization that is switched off; these come last
)

const (
	flagRevoked = 1 << iota
	flagSealed
)

// keyRecord is how long the fixed part of a key's record is.
const keyRecord = macLength + idLength + 8 + 4 + 1 + 1

// fileGrant is a grant as it stands in the file.
type fileGrant struct {
	Organization string  `json:"organization"`
	State        int32   `json:"state"`
	Project      string  `json:"project,omitempty"`
	Scopes       *Scopes `json:"scopes"`
}

type head struct {
	earlier                             bool // of the earlier version
	pepper, confirmed, length, position int64
	mac                                 [macLength]byte
}

func (h *head) bytes(key []byte) []byte {
	magic := fileMagic
	if h.earlier {
		magic = earlierMagic
	}
	b := append(make([]byte, 0, headLength), magic...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.pepper))
	b = binary.BigEndian.AppendUint64(b, uint64(h.confirmed))
	b = binary.BigEndian.AppendUint64(b, uint64(h.length))
	if !h.earlier {
		b = binary.BigEndian.AppendUint64(b, uint64(h.position))
	}
	b = append(b, h.mac[:]...)
	m := hmac.New(sha256.New, key)
	_, _ = m.Write(b)
	return m.Sum(b)
}

// fileKey is what the file is kept from being changed by.
func (k *Keys) fileKey(pepper *pepper) []byte {
	m := hmac.New(sha256.New, pepper.file)
	_, _ = io.WriteString(m, "book "+k.Book)
	return m.Sum(nil)
}

// head reads a head and checks that it was written by somebody who has our peppers, for our book.
func (k *Keys) head(from io.Reader) (h head, key []byte, err error) {
	var content [headLength]byte
	b := content[:]
	_, err = io.ReadFull(from, b[:earlierLength])
	switch magic := string(b[:len(fileMagic)]); {
	case err == nil && magic == fileMagic:
		_, err = io.ReadFull(from, b[earlierLength:])
	case err == nil && magic == earlierMagic:
		b, h.earlier = b[:earlierLength], true
	default:
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return h, nil, errors.New("it is not a snapshot of keys, or of another version")
	}
	h.pepper, h.confirmed = int64(binary.BigEndian.Uint64(b[8:])), int64(binary.BigEndian.Uint64(b[16:]))
	h.length, h.mac = int64(binary.BigEndian.Uint64(b[24:])), [macLength]byte(b[len(b)-2*macLength:])
	pepper := k.Peppers.version(int(h.pepper))
	if pepper == nil {
		return h, nil, errPepper
	}
	if key = pepper.file; !h.earlier {
		key, h.position = k.fileKey(pepper), int64(binary.BigEndian.Uint64(b[32:]))
	}
	if !hmac.Equal(h.bytes(key), b) {
		return h, nil, errors.New("its head was changed, or was written under other peppers or for another state book")
	}
	return h, key, nil
}

// save writes the table to its file, if it is whole and differs from what was saved; otherwise it notes there that it still holds. It gives
// back what is saved now. What another process has written stays where it is ahead of the table.
func (k *Keys) save(saved int64) int64 {
	live := k.Peppers.version(k.Peppers.Live())
	if k.File == "" || live == nil || k.heard.Load() == 0 || !k.known.Load() {
		return saved
	}
	position := k.position.Load() // First: changes beyond it may be in the file, none up to it lacks.
	changes := k.changes.Load()
	if changes == saved {
		if k.current.Load() {
			k.confirm(position)
		}
		return saved
	}
	if !k.whole.Load() {
		return saved // What is in the table may be of two times.
	}
	switch err := k.write(k.fileKey(live), position); {
	case errors.Is(err, errAhead):
		k.sharing()
	case err != nil:
		k.Logger.Warn("the snapshot of the keys could not be written", "path", k.File, "error", err)
		return saved
	}
	return changes
}

var (
	errAhead  = errors.New("another process has written what the ledger said later")
	errBehind = errors.New("another process has written what the ledger said earlier")
)

const (
	// behindAfter is how old what the ledger says may be while it is followed.
	behindAfter = 5 * time.Second
	// forsaken is how long after its last confirmation nobody stands behind a file any more: whoever does confirms it about once a minute.
	forsaken = 5 * time.Minute
)

// stands compares a file with the table, at a position: below 0 it is behind, above 0 ahead. Another process may have written it, and may since
// have been cut off from the ledger, or this one may.
func (k *Keys) stands(h *head, position int64) int {
	switch age := time.Since(time.UnixMilli(h.confirmed)); {
	case h.mac == k.own && !h.earlier:
		return 0
	case h.confirmed < k.loaded.Load(), position == 0, h.earlier: // The ledger may have gone back since, to before what others had heard.
		return -1
	case k.current.Load() && (age > forsaken || age < -behindAfter): // It may have, unnoticed by a process that is gone, or whose clock was wrong.
		return -1
	case !k.current.Load() && h.confirmed > k.heard.Load()+behindAfter.Milliseconds():
		return 1
	}
	return cmp.Compare(h.position, position)
}

// sharing tells once that others write the file, too.
func (k *Keys) sharing() {
	if !k.shares {
		k.shares = true
		k.Logger.Info("another process keeps its snapshot of the keys in this file, too: the newer one stays", "path", k.File)
	}
}

// confirm writes the present time into the head of the file, if that holds what is in the table.
func (k *Keys) confirm(position int64) {
	err := disk.Change(k.File, func(file *os.File) error {
		h, key, err := k.head(file)
		if err != nil {
			return err
		}
		if h.mac != k.own {
			k.sharing()
		}
		switch order := k.stands(&h, position); {
		case order > 0:
			return nil
		case order < 0:
			return errBehind
		}
		h.confirmed, h.position = time.Now().UnixMilli(), position
		_, err = file.WriteAt(h.bytes(key), 0)
		return err
	})
	if err != nil {
		if !errors.Is(err, errBehind) {
			k.Logger.Warn("the snapshot of the keys could not be confirmed", "path", k.File, "error", err)
		}
		k.changes.Add(1) // It is written whole the next time.
		k.hurry()
	}
}

// write puts the table in the place of the file, unless what is there is ahead of it.
func (k *Keys) write(key []byte, position int64) error {
	h := head{pepper: int64(k.Peppers.Live()), confirmed: k.confirmed(), position: position}
	err := disk.Replace(k.File, func(file *os.File) error { return k.fill(file, &h, key) }, func() error {
		if !k.whole.Load() {
			return errors.New("the ledger began to report anew meanwhile")
		}
		file, err := disk.Open(k.File)
		if err != nil {
			return nil //nolint:nilerr // There is none, or it is of no use to anybody.
		}
		defer func() { _ = file.Close() }() // It was only read.
		if there, _, err := k.head(file); err == nil && k.stands(&there, position) > 0 {
			return errAhead
		}
		return nil
	})
	if err == nil {
		k.own = h.mac
	}
	return err
}

// fill writes the file and completes its head.
func (k *Keys) fill(file *os.File, h *head, key []byte) error {
	if _, err := file.Write(make([]byte, headLength)); err != nil {
		return err
	}
	body := &counter{to: file, mac: hmac.New(sha256.New, key)}
	buffered := bufio.NewWriterSize(body, 256<<10)
	if err := k.table.Load().dump(buffered); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	h.length = body.n
	body.mac.Sum(h.mac[:0])
	_, err := file.WriteAt(h.bytes(key), 0)
	return err
}

// confirmed is when the ledger last stood behind the table, in Unix milliseconds.
func (k *Keys) confirmed() int64 {
	if k.current.Load() {
		return time.Now().UnixMilli()
	}
	return k.heard.Load()
}

// counter passes on what is written, and counts and authenticates it.
type counter struct {
	to  io.Writer
	mac hash.Hash
	n   int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	_, _ = c.mac.Write(b[:n])
	c.n += int64(n)
	return n, err
}

// dump writes every key, shard by shard: changes go on meanwhile.
func (t *table) dump(w *bufio.Writer) error {
	numbers := map[*grant]uint32{}
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		entries := s.all()
		granted := map[uint32]*grant{}
		for j := range entries {
			granted[entries[j].grant] = (*t.list.Load())[entries[j].grant]
		}
		sealed := maps.Clone(s.sealed)
		s.mu.RUnlock()
		for j := range entries {
			if err := dumpEntry(w, &entries[j], granted[entries[j].grant], sealed[entries[j].id], numbers); err != nil {
				return err
			}
		}
	}
	var err error
	for _, id := range t.switchedOff() { // Also those without keys here: others may vouch for their callers.
		_ = w.WriteByte(recordOff)
		_, _ = w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(id))))
		_, err = w.WriteString(id)
	}
	return err
}

func dumpEntry(w *bufio.Writer, e *entry, g *grant, sealed []byte, numbers map[*grant]uint32) error {
	number, known := numbers[g]
	if !known {
		number = uint32(len(numbers))
		numbers[g] = number
		content, err := json.Marshal(fileGrant{g.organization.id, g.organization.state.Load(), g.project, g.scopes})
		if err != nil {
			return err
		}
		if len(content) > maxFilePart {
			return fmt.Errorf("the scopes of key %s are too large", e.id[:])
		}
		_ = w.WriteByte(recordGrant) // A bufio.Writer keeps its first error for the last call.
		_, _ = w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(content))))
		_, _ = w.Write(content)
	}
	var flags byte
	if e.revoked {
		flags |= flagRevoked
	}
	if sealed != nil {
		flags |= flagSealed
	}
	b := append(make([]byte, 0, keyRecord+1), recordKey)
	b = append(append(b, e.digest[:]...), e.id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.expires))
	b = append(binary.BigEndian.AppendUint32(b, number), e.pepper, flags)
	_, err := w.Write(b)
	if sealed != nil {
		_, _ = w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(sealed))))
		_, err = w.Write(sealed)
	}
	return err
}

// recall takes the table from its file, if there is one that can be trusted.
func (k *Keys) recall() {
	if k.File == "" {
		return
	}
	t, h, err := k.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		k.Logger.Warn("the snapshot of the keys is not used", "path", k.File, "error", err)
		return
	}
	confirmed := min(h.confirmed, time.Now().UnixMilli()) // A clock that went back makes nothing younger.
	k.table.Store(t)
	k.heard.Store(confirmed)
	k.known.Store(true)
	k.Logger.Info("keys are served from the snapshot until the ledger answers", "keys", t.count.Load(), "confirmed", time.UnixMilli(confirmed).UTC())
}

func (k *Keys) read() (*table, head, error) {
	file, err := disk.Open(k.File)
	if err != nil {
		return nil, head{}, err
	}
	defer func() { _ = file.Close() }() // It was only read: nothing can be lost.
	h, key, err := k.head(file)
	if err != nil {
		return nil, h, err
	}
	mac := hmac.New(sha256.New, key)
	body := bufio.NewReaderSize(io.TeeReader(io.LimitReader(file, h.length), mac), 256<<10)
	t, err := undump(body)
	if err != nil {
		return nil, h, err
	}
	if !hmac.Equal(mac.Sum(nil), h.mac[:]) { // Until here, nobody has asked the table.
		return nil, h, errors.New("its body was changed or is damaged")
	}
	return t, h, nil
}

// undump is the reverse of dump.
func undump(r *bufio.Reader) (*table, error) {
	t := newTable()
	var grants []uint32
	for {
		kind, err := r.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return t, nil
		case err != nil:
			return nil, err
		case kind == recordGrant:
			g, err := undumpGrant(t, r)
			if err != nil {
				return nil, err
			}
			grants = append(grants, g)
		case kind == recordKey:
			if err := undumpKey(t, r, grants); err != nil {
				return nil, err
			}
		case kind == recordOff:
			id, err := part(r)
			if err != nil {
				return nil, err
			}
			t.organize(string(id), true)
		default:
			return nil, errors.New("it has a record of a kind that is not known")
		}
	}
}

func undumpGrant(t *table, r io.Reader) (uint32, error) {
	content, err := part(r)
	if err != nil {
		return 0, err
	}
	var f fileGrant
	if err := json.Unmarshal(content, &f); err != nil || f.Scopes == nil {
		return 0, errors.New("scopes in it cannot be read")
	}
	t.owner(f.Organization).state.Store(f.State)
	number := t.grant(f.Organization, f.Project, f.Scopes)
	(*t.list.Load())[number].keys-- // No key has it yet.
	return number, nil
}

func undumpKey(t *table, r io.Reader, grants []uint32) error {
	var b [keyRecord]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	rest := b[macLength+idLength:]
	number := binary.BigEndian.Uint32(rest[8:])
	if int64(number) >= int64(len(grants)) {
		return errors.New("a key in it has scopes that are not there")
	}
	(*t.list.Load())[grants[number]].keys++
	e := entry{
		digest: Digest(b[:macLength]), id: keyID(b[macLength:]), grant: grants[number], expires: int64(binary.BigEndian.Uint64(rest)),
		pepper: rest[12], revoked: rest[13]&flagRevoked != 0,
	}
	var sealed []byte
	if rest[13]&flagSealed != 0 {
		var err error
		if sealed, err = part(r); err != nil {
			return err
		}
	}
	t.put(e, sealed)
	return nil
}

// part reads a length and as many bytes.
func part(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxFilePart {
		return nil, errors.New("a part of it is too long")
	}
	content := make([]byte, n)
	_, err := io.ReadFull(r, content)
	return content, err
}
