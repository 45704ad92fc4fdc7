package auth

import (
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"
)

// shards is over how many locks the keys are spread: a change holds up the lookups of one of them, for less than a microsecond.
const shards = 256

// keyID is an id in its place of memory.
type keyID [idLength]byte

// grant is what many keys have in common: to whom they belong and what they may do. It never changes; a key gets another one.
type grant struct {
	organization *owner
	project      string
	scopes       *Scopes
	text         string // by which it is found again
	keys         int    // that have it; for the writer alone
}

// owner is an organization as its keys need it.
type owner struct {
	id    string
	state atomic.Int32
}

// The states of an owner. It is unknown until the ledger has told of it.
const (
	ownerUnknown = iota
	ownerEnabled
	ownerDisabled
)

// entry is a key as the hot path needs it. There may be a million of them: it is small, and strings stand in the grant.
type entry struct {
	digest     Digest
	grant      *grant
	expires    int64 // Unix milliseconds; 0: never
	id         keyID
	used       uint32 // Unix seconds: when its use was last noted
	generation uint16 // of the last time that the ledger gave it
	pepper     uint8
	revoked    bool
}

// shard is a part of the keys.
type shard struct {
	mu    sync.RWMutex
	index map[keyID]uint32 // into entries
	// entries are all in one piece, without gaps: the last one takes the place of one that goes.
	entries []entry
	sealed  map[keyID][]byte
	used    map[keyID]int64 // Unix milliseconds, since it was last taken
}

// table is all keys. Lookups and changes may happen at once; changes may not.
type table struct {
	shards [shards]shard
	count  atomic.Int64

	mu     sync.RWMutex
	prints map[Digest]keyID // of imported fingerprints
	// imported is the length of prints, to be asked without the lock.
	imported atomic.Int64

	// What only the writer touches.
	generation uint16
	owners     map[string]*owner
	grants     map[string]*grant
}

func newTable() *table {
	t := &table{prints: map[Digest]keyID{}, owners: map[string]*owner{}, grants: map[string]*grant{}}
	for i := range t.shards {
		t.shards[i].index = map[keyID]uint32{}
	}
	return t
}

// shard is where a key of that id is. Ids are random, so any of their characters would do; an imported one's may be chosen.
func (t *table) shard(id keyID) *shard {
	return &t.shards[(uint(id[7])*61+uint(id[6])*31+uint(id[5]))%shards]
}

// find looks a key up.
func (t *table) find(id keyID) (entry, bool) {
	s := t.shard(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	at, ok := s.index[id]
	if !ok {
		return entry{}, false
	}
	return s.entries[at], true
}

// print looks an imported fingerprint up.
func (t *table) print(d Digest) (entry, bool) {
	t.mu.RLock()
	id, ok := t.prints[d]
	t.mu.RUnlock()
	if !ok {
		return entry{}, false
	}
	return t.find(id)
}

// secret is a key's sealed signing secret, nil without one.
func (t *table) secret(id keyID) []byte {
	s := t.shard(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.sealed[id]
}

// useEvery is how exactly the use of a key is noted, in seconds: a busy key must not take its lock with each request.
const useEvery = 10

// use notes that a key was used at that time, in Unix milliseconds.
func (t *table) use(id keyID, at int64) {
	s := t.shard(id)
	s.mu.Lock()
	if s.used == nil {
		s.used = map[keyID]int64{}
	}
	if i, ok := s.index[id]; ok { // There are never more of them than there are keys.
		s.entries[i].used = uint32(at / 1000)
		s.used[id] = max(at, s.used[id])
	}
	s.mu.Unlock()
}

// takeUsed gives what was noted since the last time.
func (t *table) takeUsed() map[string]time.Time {
	taken := map[string]time.Time{}
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		used := s.used
		s.used = nil
		s.mu.Unlock()
		for id, at := range used {
			taken[string(id[:])] = time.UnixMilli(at)
		}
	}
	return taken
}

// owner finds an organization or makes one of which nothing else is known.
func (t *table) owner(id string) *owner {
	o, ok := t.owners[id]
	if !ok {
		o = &owner{id: id}
		t.owners[id] = o
	}
	return o
}

// organize takes an organization as it stands now.
func (t *table) organize(id string, disabled bool) {
	state := int32(ownerEnabled)
	if disabled {
		state = ownerDisabled
	}
	t.owner(id).state.Store(state)
}

// grant finds the one for these or makes it, and counts a key more.
func (t *table) grant(organization, project string, scopes *Scopes) (*grant, error) {
	content, err := json.Marshal(struct {
		Organization, Project string
		Scopes                *Scopes
	}{organization, project, scopes})
	if err != nil {
		return nil, err
	}
	g, ok := t.grants[string(content)]
	if !ok {
		g = &grant{organization: t.owner(organization), project: project, text: string(content)}
		g.scopes = new(Scopes)
		if err := json.Unmarshal(content, &struct{ Scopes *Scopes }{g.scopes}); err != nil { // A copy that nobody else has.
			return nil, err
		}
		t.grants[g.text] = g
	}
	g.keys++
	return g, nil
}

// release counts a key less.
func (t *table) release(g *grant) {
	if g.keys--; g.keys == 0 {
		delete(t.grants, g.text)
	}
}

// put takes a key as it stands now.
func (t *table) put(e entry, sealed []byte) {
	e.generation = t.generation
	s := t.shard(e.id)
	s.mu.Lock()
	at, known := s.index[e.id]
	var before entry
	if known {
		before = s.entries[at]
		e.used = before.used
		s.entries[at] = e
	} else {
		s.index[e.id] = uint32(len(s.entries))
		s.entries = append(s.entries, e)
	}
	if sealed != nil {
		if s.sealed == nil {
			s.sealed = map[keyID][]byte{}
		}
		s.sealed[e.id] = sealed
	} else {
		delete(s.sealed, e.id)
	}
	s.mu.Unlock()
	if known {
		t.release(before.grant)
		if before.pepper == 0 && (e.pepper != 0 || before.digest != e.digest) {
			t.unprint(&before)
		}
	} else {
		t.count.Add(1)
	}
	if e.pepper == 0 {
		t.mu.Lock()
		t.prints[e.digest] = e.id
		t.imported.Store(int64(len(t.prints)))
		t.mu.Unlock()
	}
}

// unprint forgets the fingerprint of a key, unless it has become another's.
func (t *table) unprint(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.prints[e.digest] == e.id {
		delete(t.prints, e.digest)
		t.imported.Store(int64(len(t.prints)))
	}
}

// drop forgets a key.
func (t *table) drop(id keyID) {
	s := t.shard(id)
	s.mu.Lock()
	at, ok := s.index[id]
	var gone entry
	if ok {
		gone = s.remove(at)
	}
	s.mu.Unlock()
	if ok {
		t.dropped(&gone)
	}
}

// remove takes an entry out, under the lock.
func (s *shard) remove(at uint32) entry {
	gone, last := s.entries[at], len(s.entries)-1
	if int(at) != last {
		s.entries[at] = s.entries[last]
		s.index[s.entries[at].id] = at
	}
	s.entries[last] = entry{}
	s.entries = s.entries[:last]
	delete(s.index, gone.id)
	delete(s.sealed, gone.id)
	delete(s.used, gone.id)
	return gone
}

func (t *table) dropped(e *entry) {
	t.count.Add(-1)
	t.release(e.grant)
	if e.pepper == 0 {
		t.unprint(e)
	}
}

// sweep forgets every key that the ledger has not given since the generation began, and says how many.
func (t *table) sweep() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		var gone []entry
		s.mu.Lock()
		for at := 0; at < len(s.entries); {
			if s.entries[at].generation == t.generation {
				at++
				continue
			}
			gone = append(gone, s.remove(uint32(at)))
		}
		s.mu.Unlock()
		for j := range gone {
			t.dropped(&gone[j])
		}
		n += len(gone)
	}
	return n
}
