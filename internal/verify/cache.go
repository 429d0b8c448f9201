package verify

import (
	"sync"

	"github.com/assay-build/assay/internal/tlog"
)

// checkpointCache remembers checkpoints whose signature verified, by their full text
// and log. A batch of entries shares one checkpoint, so most verifications find
// theirs here. It has two generations: when the young one is full it becomes the old
// one, and what is found in the old one moves up. So it is bounded, and what is used
// stays.
type checkpointCache struct {
	mu         sync.Mutex
	young, old map[checkpointKey]verifiedTree
}

// checkpointGeneration bounds one generation: about 1 MiB of texts.
const checkpointGeneration = 4096

type checkpointKey struct {
	log    *logKey          // of one Root, so the pointer names the key
	format tlog.EntryFormat // what origin the text must have depends on it
	text   string
}

// verifiedTree is what a verified checkpoint says.
type verifiedTree struct {
	size uint64
	root [32]byte
}

func (c *checkpointCache) get(k checkpointKey) (verifiedTree, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.young[k]; ok {
		return t, true
	}
	t, ok := c.old[k]
	if ok {
		c.insert(k, t)
	}
	return t, ok
}

func (c *checkpointCache) put(k checkpointKey, t verifiedTree) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.insert(k, t)
}

func (c *checkpointCache) insert(k checkpointKey, t verifiedTree) {
	if c.young == nil || len(c.young) >= checkpointGeneration {
		c.old, c.young = c.young, make(map[checkpointKey]verifiedTree)
	}
	c.young[k] = t
}
