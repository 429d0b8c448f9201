package store

import "sync"

// memo remembers rows of a table whose rows never change: what was used last, at
// least most of them and less than twice as many. It may be used concurrently.
type memo[K comparable, V any] struct {
	mu         sync.Mutex
	young, old map[K]V
	most       int
}

func newMemo[K comparable, V any](most int) *memo[K, V] {
	return &memo[K, V]{young: make(map[K]V), most: most}
}

// each calls f with what is remembered of each key, in order, under one lock.
func (m *memo[K, V]) each(keys []K, f func(i int, v V, ok bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, k := range keys {
		v, ok := m.young[k]
		if !ok {
			if v, ok = m.old[k]; ok {
				m.put(k, v)
			}
		}
		f(i, v, ok)
	}
}

func (m *memo[K, V]) add(k K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(k, v)
}

func (m *memo[K, V]) put(k K, v V) {
	if len(m.young) >= m.most {
		m.old, m.young = m.young, make(map[K]V, m.most)
	}
	m.young[k] = v
}
