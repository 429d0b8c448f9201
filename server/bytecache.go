package server

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// byteCache is an LRU that is bounded in entries and in bytes: callers choose how
// large what they attest is, so a number of entries alone bounds nothing.
type byteCache[V any] struct {
	mu     sync.Mutex
	lru    *simplelru.LRU[string, sizedValue[V]]
	budget int
	used   int
}

type sizedValue[V any] struct {
	value V
	size  int
}

// newByteCache makes a cache of so many entries, which together are of no more
// than budget bytes, by the sizes that add is told.
func newByteCache[V any](entries, budget int) (*byteCache[V], error) {
	c := &byteCache[V]{budget: budget}
	var err error
	c.lru, err = simplelru.NewLRU(entries, func(_ string, v sizedValue[V]) { c.used -= v.size })
	return c, err
}

func (c *byteCache[V]) get(key string) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.lru.Get(key)
	return v.value, ok
}

// add keeps v, in the place of what key had before. What is larger than the whole
// budget is not kept, and what was there before is not either.
func (c *byteCache[V]) add(key string, v V, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lru.Remove(key)
	if size > c.budget {
		return
	}
	for c.used+size > c.budget {
		c.lru.RemoveOldest()
	}
	c.used += size
	c.lru.Add(key, sizedValue[V]{v, size})
}
