package store

import (
	"context"
	"database/sql/driver"

	"github.com/assay-build/assay/internal/refusal"
)

// Bounds of what the dictionary keeps in memory, and of how much of it one write adds.
const (
	maxKnown      = 1 << 15
	maxKnownBytes = 256 // of a key; longer ones are looked up each time
	internRows    = 512
	internBytes   = 1 << 10 // what a new row costs, with its places in indexes
)

// dictionary gives components and licences their numbers. Most of the components of an
// SBOM were in another before: those are known without a read.
type dictionary struct {
	components, licenses *memo[string, int64]
	versions             *memo[int64, ComponentVersion]
	texts                *memo[int64, string]
}

func newDictionary() *dictionary {
	return &dictionary{
		components: newMemo[string, int64](maxKnown),
		licenses:   newMemo[string, int64](maxKnown / 8),
		versions:   newMemo[int64, ComponentVersion](maxKnown / 4),
		texts:      newMemo[int64, string](maxKnown / 8),
	}
}

// number packs an SBOM for the index. What of it the dictionary does not have is added
// by writes of its own, of bounded size, so that one SBOM of new components holds up
// nobody. They are durable before anything refers to them: a crash, or a refusal of
// the attestation, leaves rows that nothing refers to, which the next SBOM finds.
func (s *Store) number(ctx context.Context, b *SBOM) (*sbomRow, error) {
	if b == nil {
		return nil, nil
	}
	keys := make([]string, len(b.Components))
	var texts []string
	place := make(map[string]int)
	for i := range b.Components {
		keys[i] = b.Components[i].key()
		for _, l := range b.Components[i].Licenses {
			if _, ok := place[l]; !ok {
				place[l] = len(texts)
				texts = append(texts, l)
			}
		}
	}
	ids, err := intern(ctx, s.w, s.dictionary.components, keys, func(c *conn, i int) (int64, error) {
		v := &b.Components[i]
		return idOf(c, "SELECT id FROM components WHERE key = ?1",
			"INSERT INTO components (key, type, namespace, name, version) VALUES (?1,?2,?3,?4,?5) ON CONFLICT (key) DO NOTHING",
			keys[i], v.Type, v.Namespace, v.Name, v.Version)
	})
	if err != nil {
		return nil, err
	}
	licenses, err := intern(ctx, s.w, s.dictionary.licenses, texts, func(c *conn, i int) (int64, error) {
		return idOf(c, "SELECT id FROM licenses WHERE text = ?1", "INSERT INTO licenses (text) VALUES (?1) ON CONFLICT (text) DO NOTHING", texts[i])
	})
	if err != nil {
		return nil, err
	}
	list := make([]listed, len(keys))
	for i := range list {
		list[i].id = ids[i]
		for _, l := range b.Components[i].Licenses {
			list[i].licenses = append(list[i].licenses, licenses[place[l]])
		}
	}
	return &sbomRow{claimed: b.Claimed, complete: b.Complete, format: b.Format, list: appendList(nil, list)}, nil
}

// intern returns the number of each key; add gives the i-th one its number.
func intern(ctx context.Context, w *writer, known *memo[string, int64], keys []string, add func(c *conn, i int) (int64, error)) ([]int64, error) {
	ids := make([]int64, len(keys))
	var missing []int
	known.each(keys, func(i int, id int64, ok bool) {
		if ids[i] = id; !ok {
			missing = append(missing, i)
		}
	})
	for len(missing) > 0 {
		some := missing[:min(len(missing), internRows)]
		missing = missing[len(some):]
		size := 0
		for _, i := range some {
			size += 2*len(keys[i]) + internBytes
		}
		err := w.do(ctx, size, func(c *conn) (err error) {
			for _, i := range some {
				if ids[i], err = add(c, i); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		// Only what is durable is remembered.
		for _, i := range some {
			if len(keys[i]) <= maxKnownBytes {
				known.add(keys[i], ids[i])
			}
		}
	}
	return ids, nil
}

// idOf returns the id of a row, which it inserts if it is absent.
func idOf(c *conn, find, insert string, values ...driver.Value) (int64, error) {
	res, err := c.exec(insert, values...)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return 0, err
	}
	if n == 1 {
		id, err := res.LastInsertId()
		if err == nil && id > maxID {
			err = refusal.New(CodeRecordInvalid, "the dictionary of components is full")
		}
		return id, err
	}
	var dest [1]driver.Value
	if _, err := c.row(find, dest[:], values[0]); err != nil {
		return 0, err
	}
	return dest[0].(int64), nil
}
