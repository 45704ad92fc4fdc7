package auth

import (
	"encoding/binary"
	"sync"
)

// shards is over how many locks the keys are spread: a change holds up the lookups of one of them, for a microsecond.
const shards = 256

// keyID is an id in its place of memory.
type keyID [idLength]byte

// entry is a key as the hot path needs it. There may be a million of them: it is small, and holds no pointer that the collector would follow.
type entry struct {
	digest     Digest
	expires    int64 // Unix milliseconds; 0: never
	id         keyID
	grant      uint32 // its number
	used       uint32 // Unix seconds: when its use was last noted
	generation uint16 // of the last time that the ledger gave it
	pepper     uint8
	revoked    bool
	unusable   bool // and counted as such
}

// hash spreads ids. They are random, and made here: nobody can choose them to fall into one place.
func (id keyID) hash() uint64 { return binary.LittleEndian.Uint64(id[:]) * 0x9e3779b97f4a7c15 } // Fibonacci hashing: Knuth, volume 3, section 6.4.

// shard is a part of the keys. What it does is done under its lock.
type shard struct {
	mu sync.RWMutex
	// slots are numbers of entries plus one, 0 for none, at the place of the id's hash or the next free one. A map of Go would take three times the memory.
	slots []uint32
	// chunks hold count entries without gaps: the last one takes the place of one that goes. A slice would leave room and garbage as it grows.
	chunks []*chunk
	count  uint32
	sealed map[keyID][]byte
	used   map[keyID]int64 // Unix milliseconds, since it was last taken
}

// chunk is the piece in which memory for keys is taken.
type chunk [chunkLength]entry

const chunkLength = 64

// at is the entry of that number.
func (s *shard) at(i uint32) *entry { return &s.chunks[i/chunkLength][i%chunkLength] }

// home is where the slot of an id should be.
func (s *shard) home(id keyID) int { return int(uint32(id.hash()>>40)) & (len(s.slots) - 1) }

// slot is where the slot of an id is, or would be.
func (s *shard) slot(id keyID) int {
	i := s.home(id)
	for s.slots[i] != 0 && s.at(s.slots[i]-1).id != id {
		i = (i + 1) & (len(s.slots) - 1)
	}
	return i
}

// find gives the number of an entry.
func (s *shard) find(id keyID) (uint32, bool) {
	if s.count == 0 {
		return 0, false
	}
	at := s.slots[s.slot(id)]
	return at - 1, at != 0
}

// add puts an entry behind the others. There is none with its id.
func (s *shard) add(e *entry) {
	if int(s.count+1)*4 > len(s.slots)*3 { // At most three of four slots are taken.
		s.slots = make([]uint32, max(16, 2*len(s.slots)))
		for i := range s.count {
			s.slots[s.slot(s.at(i).id)] = i + 1
		}
	}
	if int(s.count) == len(s.chunks)*chunkLength {
		s.chunks = append(s.chunks, new(chunk))
	}
	s.slots[s.slot(e.id)] = s.count + 1
	s.count++
	*s.at(s.count - 1) = *e
}

// remove takes an entry out.
func (s *shard) remove(at uint32) entry {
	gone, last := *s.at(at), s.at(s.count-1)
	s.vacate(s.slot(gone.id))
	if at != s.count-1 {
		s.slots[s.slot(last.id)] = at + 1
		*s.at(at) = *last
	}
	*last = entry{}
	s.count--
	if int(s.count) == (len(s.chunks)-1)*chunkLength {
		s.chunks[len(s.chunks)-1] = nil
		s.chunks = s.chunks[:len(s.chunks)-1]
	}
	delete(s.sealed, gone.id)
	delete(s.used, gone.id)
	return gone
}

// vacate frees a slot, and moves those behind it up that would not be found any more: Knuth, volume 3, section 6.4, algorithm R.
func (s *shard) vacate(free int) {
	mask := len(s.slots) - 1
	for next := (free + 1) & mask; s.slots[next] != 0; next = (next + 1) & mask {
		home := s.home(s.at(s.slots[next] - 1).id)
		if (next-home)&mask >= (next-free)&mask {
			s.slots[free] = s.slots[next]
			free = next
		}
	}
	s.slots[free] = 0
}

// all copies every entry.
func (s *shard) all() []entry {
	entries := make([]entry, 0, s.count)
	for i := range s.count {
		entries = append(entries, *s.at(i))
	}
	return entries
}
