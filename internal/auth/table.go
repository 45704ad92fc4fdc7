package auth

import (
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// grant is what many keys have in common: to whom they belong and what they may do. It never changes; a key gets another one.
type grant struct {
	organization *owner
	project      string
	scopes       *Scopes
	number       uint32 // in the list of all
	text         string // by which it is found again
	keys         int    // that have it; for the writer alone
}

// owner is an organization as its keys need it.
type owner struct {
	id         string
	state      atomic.Int32
	generation uint16 // of the last time that the ledger told of it; for the writer alone
}

// The states of an owner. It is unknown until the ledger has told of it.
const (
	ownerUnknown = iota
	ownerEnabled
	ownerDisabled
)

// table is all keys. Lookups and changes may happen at once; changes may not.
type table struct {
	shards   [shards]shard
	count    atomic.Int64
	unusable atomic.Int64 // of them

	mu     sync.RWMutex
	prints map[Digest]keyID  // of imported fingerprints
	owners map[string]*owner // which the writer alone may look into without the lock
	// imported is the length of prints, to be asked without the lock.
	imported atomic.Int64

	// list are the grants by their numbers. A number is given anew only when no entry has it.
	list atomic.Pointer[[]*grant]

	// What only the writer touches.
	free       []uint32
	generation uint16
	grants     map[string]*grant
	text       []byte // memory for looking into grants
}

func newTable() *table {
	t := &table{prints: map[Digest]keyID{}, owners: map[string]*owner{}, grants: map[string]*grant{}}
	t.list.Store(new([]*grant))
	return t
}

// shard is where a key of that id is. Ids are random, so any of their characters would do.
func (t *table) shard(id keyID) *shard { return &t.shards[id.hash()>>32%shards] }

// find looks a key up, and what it may do.
func (t *table) find(id keyID) (entry, *grant, bool) {
	s := t.shard(id)
	s.mu.RLock()
	defer s.mu.RUnlock()
	at, ok := s.find(id)
	if !ok {
		return entry{}, nil, false
	}
	e := *s.at(at)
	return e, (*t.list.Load())[e.grant], true // Under the lock: a number that no key has may become that of another grant.
}

// print looks an imported fingerprint up.
func (t *table) print(d Digest) (entry, *grant, bool) {
	t.mu.RLock()
	id, ok := t.prints[d]
	t.mu.RUnlock()
	if !ok {
		return entry{}, nil, false
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
	if i, ok := s.find(id); ok { // There are never more of them than there are keys.
		s.at(i).used = uint32(at / 1000)
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
		t.mu.Lock()
		t.owners[id] = o
		t.mu.Unlock()
	}
	return o
}

// disabled reports whether an organization is known and switched off.
func (t *table) disabled(id string) bool {
	t.mu.RLock()
	o, ok := t.owners[id]
	t.mu.RUnlock()
	return ok && o.state.Load() == ownerDisabled
}

// switchedOff are the ids of the organizations that are.
func (t *table) switchedOff() (ids []string) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for id, o := range t.owners {
		if o.state.Load() == ownerDisabled {
			ids = append(ids, id)
		}
	}
	return ids
}

// organize takes an organization as it stands now.
func (t *table) organize(id string, disabled bool) {
	state := int32(ownerEnabled)
	if disabled {
		state = ownerDisabled
	}
	o := t.owner(id)
	o.generation = t.generation
	o.state.Store(state)
}

// grant finds the one for these or makes it, and counts a key more. It gives its number.
func (t *table) grant(organization, project string, scopes *Scopes) uint32 {
	t.text = appendGrant(t.text[:0], organization, project, scopes)
	g, ok := t.grants[string(t.text)]
	if !ok {
		g = &grant{organization: t.owner(organization), project: project, scopes: scopes.clone(), text: string(t.text)}
		t.grants[g.text] = g
		t.number(g)
	}
	g.keys++
	return g.number
}

// number gives a grant a number in the list: one that no key has any more, or a new one.
func (t *table) number(g *grant) {
	list := *t.list.Load()
	if n := len(t.free); n > 0 {
		g.number, t.free = t.free[n-1], t.free[:n-1]
		list[g.number] = g
		return
	}
	g.number = uint32(len(list))
	list = append(list, g) // Whoever reads the old list asks for none of the new numbers.
	t.list.Store(&list)
}

// appendGrant writes what is in a grant so that no two of them look the same.
func appendGrant(b []byte, organization, project string, s *Scopes) []byte {
	text := func(texts ...string) {
		b = binary.AppendUvarint(b, uint64(len(texts)))
		for _, each := range texts {
			b = append(binary.AppendUvarint(b, uint64(len(each))), each...)
		}
	}
	text(organization, project, s.Signature)
	text(s.Models...)
	text(s.Endpoints...)
	b = binary.AppendUvarint(b, uint64(len(s.Networks)))
	for _, n := range s.Networks {
		text(n.String())
	}
	b = binary.AppendVarint(b, s.MaxTokens)
	b = strconv.AppendBool(b, s.Priority)
	b = binary.AppendUvarint(b, uint64(len(s.Tags)))
	if len(s.Tags) > 0 {
		for _, name := range slices.Sorted(maps.Keys(s.Tags)) {
			text(name, s.Tags[name])
		}
	}
	return b
}

// release counts a key less.
func (t *table) release(number uint32) {
	g := (*t.list.Load())[number]
	if g.keys--; g.keys == 0 {
		delete(t.grants, g.text)
		t.free = append(t.free, number)
	}
}

// put takes a key as it stands now.
func (t *table) put(e entry, sealed []byte) {
	e.generation = t.generation
	s := t.shard(e.id)
	s.mu.Lock()
	at, known := s.find(e.id)
	var before entry
	if known {
		before = *s.at(at)
		e.used = before.used
		*s.at(at) = e
	} else {
		s.add(&e)
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
	switch {
	case e.unusable && !before.unusable:
		t.unusable.Add(1)
	case before.unusable && !e.unusable:
		t.unusable.Add(-1)
	}
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
	at, ok := s.find(id)
	var gone entry
	if ok {
		gone = s.remove(at)
	}
	s.mu.Unlock()
	if ok {
		t.dropped(&gone)
	}
}

func (t *table) dropped(e *entry) {
	t.count.Add(-1)
	if e.unusable {
		t.unusable.Add(-1)
	}
	t.release(e.grant)
	if e.pepper == 0 {
		t.unprint(e)
	}
}

// sweep forgets every key that the ledger has not given since the generation began, and says how many. It forgets what was known of
// organizations, too: one that was deleted meanwhile is switched off no more, and nobody could ever switch it on.
func (t *table) sweep() int {
	for _, o := range t.owners {
		if o.generation != t.generation {
			o.state.Store(ownerUnknown)
		}
	}
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		var gone []entry
		s.mu.Lock()
		for at := uint32(0); at < s.count; {
			if s.at(at).generation == t.generation {
				at++
				continue
			}
			gone = append(gone, s.remove(at))
		}
		s.mu.Unlock()
		for j := range gone {
			t.dropped(&gone[j])
		}
		n += len(gone)
	}
	return n
}
