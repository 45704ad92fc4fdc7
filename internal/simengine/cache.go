package simengine

import (
	"container/list"
	"slices"
)

// cache is the key-value cache: a fixed number of blocks, shared by content. A block that no sequence holds stays until its
// room is wanted; the least recently used goes first.
type cache struct {
	size    int
	blocks  map[uint64]*block
	idle    list.List // of *block, least recently used first
	private int       // blocks reserved by sequences and not (or not yet) shared
}

type block struct {
	digest uint64
	refs   int
	place  *list.Element // in idle, nil while a sequence holds the block
}

// holding is what one sequence has of the cache.
type holding struct {
	shared  []*block // in the order of the text
	private int
}

func newCache(size int) cache { return cache{size: size, blocks: make(map[uint64]*block)} }

// busy counts the blocks that cannot be evicted.
func (c *cache) busy() int { return len(c.blocks) - c.idle.Len() + c.private }

// usage is the share of blocks that running sequences hold, from 0 to 1.
func (c *cache) usage() float64 { return float64(c.busy()) / float64(c.size) }

// hold reserves total blocks, of which those that match the leading digests are shared. It reports false, and changes
// nothing, when there is not enough room.
func (c *cache) hold(digests []uint64, total int) (holding, bool) {
	var found []*block
	woken := 0
	for _, d := range digests {
		b, ok := c.blocks[d]
		if !ok {
			break
		}
		if b.place != nil {
			woken++
		}
		found = append(found, b)
	}
	fresh := total - len(found)
	if c.busy()+woken+fresh > c.size {
		return holding{}, false
	}
	for _, b := range found {
		b.refs++
		if b.place != nil {
			c.idle.Remove(b.place)
			b.place = nil
		}
	}
	c.private += fresh
	for len(c.blocks)+c.private > c.size {
		oldest, _ := c.idle.Remove(c.idle.Front()).(*block)
		delete(c.blocks, oldest.digest)
	}
	return holding{shared: found, private: fresh}, true
}

// publish shares one of the holder's private blocks under its digest. Where another sequence was faster, the copy stays private.
func (c *cache) publish(h *holding, digest uint64) {
	if _, ok := c.blocks[digest]; ok || h.private == 0 {
		return
	}
	b := &block{digest: digest, refs: 1}
	c.blocks[digest] = b
	h.shared = append(h.shared, b)
	h.private--
	c.private--
}

// release gives everything back. The end of the text becomes the older part: it is the less likely to be asked for again.
func (c *cache) release(h *holding) {
	for _, b := range slices.Backward(h.shared) {
		b.refs--
		if b.refs == 0 {
			b.place = c.idle.PushBack(b)
		}
	}
	c.private -= h.private
	*h = holding{}
}
