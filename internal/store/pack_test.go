package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// envelopeOf is JSON around a payload, as bundles and envelopes are.
func envelopeOf(payload []byte) []byte {
	return []byte(`{"dsseEnvelope":{"payload":"` + base64.StdEncoding.EncodeToString(payload) + `","payloadType":"t","signatures":[]}}`)
}

func statement(n int) []byte { return []byte(strings.Repeat(`{"purl":"pkg:npm/a@1"},`, n/23+1)[:n]) }

// TestPackGivesBackTheSameBytes packs whatever somewhat resembles a bundle.
func TestPackGivesBackTheSameBytes(t *testing.T) {
	t.Parallel()
	p := newPacker()
	space := rapid.SampledFrom([]string{"", " ", "\n\t", "\\n"})
	rapid.Check(t, func(t *rapid.T) {
		var doc bytes.Buffer
		for range rapid.IntRange(0, 4).Draw(t, "parts") {
			payload := statement(rapid.SampledFrom([]int{0, 1, 100, 3071, 3072, 3073, 5000, 50_000}).Draw(t, "size"))
			text := []byte(base64.StdEncoding.EncodeToString(payload))
			if len(text) > 0 && rapid.Bool().Draw(t, "damaged") {
				at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
				text[at] = rapid.SampledFrom([]byte("=+/\n\\\"\x00Bx")).Draw(t, "byte")
			}
			if n := len(text); n > 2 && rapid.Bool().Draw(t, "stray bits") {
				text[n-2]++
			}
			doc.WriteString(rapid.SampledFrom([]string{"", "{", `{"x":`, "\x00", "\x01", "\x02", `"payload"`, `"payload":`}).Draw(t, "before"))
			doc.WriteString(space.Draw(t, "s1") + `"payload"` + space.Draw(t, "s2") + ":" + space.Draw(t, "s3") + `"`)
			doc.Write(text)
			doc.WriteString(rapid.SampledFrom([]string{`"}`, "", `","payloadType":""}`}).Draw(t, "after"))
		}
		packed, err := p.pack(doc.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		back, err := p.unpack(packed)
		if err != nil || !bytes.Equal(back, doc.Bytes()) {
			t.Fatalf("%q became %q (%v)", doc.Bytes(), back, err)
		}
	})
}

func TestPackSizes(t *testing.T) {
	t.Parallel()
	p := newPacker()
	random := make([]byte, 100_000)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	for name, tc := range map[string]struct {
		doc  []byte
		most int
	}{
		"small is kept":            {envelopeOf(statement(3000)), len(envelopeOf(statement(3000)))},
		"large is packed":          {envelopeOf(statement(100_000)), 2000},
		"random loses its base64":  {envelopeOf(random), 100_200},
		"not canonical is kept":    {bytes.Replace(envelopeOf(statement(100_000)), []byte("=="), []byte("="), 1), 133_500},
		"no payload":               {statement(100_000), 100_000},
		"begins like a packed one": {[]byte("\x01abc"), 5},
		"begins like a plain one":  {[]byte("\x00abc"), 5},
		"empty":                    {nil, 0},
	} {
		packed, err := p.pack(tc.doc)
		must(t, err)
		if len(packed) > tc.most {
			t.Errorf("%s: %d bytes became %d, want at most %d", name, len(tc.doc), len(packed), tc.most)
		}
		back, err := p.unpack(packed)
		must(t, err)
		if !bytes.Equal(back, tc.doc) {
			t.Errorf("%s: came back as %q", name, clip(string(back)))
		}
	}
}

func TestLargestBundle(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a bundle of 67 MB")
	}
	t.Parallel()
	s := openNew(t)
	p, bundle := testPending(1), envelopeOf(statement(50_000_000))
	p.Envelope = bundle
	must(t, s.BeginAttestation(context.Background(), p))
	pending, err := s.PendingAttestation(context.Background(), p.ID)
	must(t, err)
	must(t, s.CompleteAttestation(context.Background(), p.ID, 1, bundle, LogHead{}))
	a, err := s.Attestation(context.Background(), p.ID)
	must(t, err)
	if !bytes.Equal(a.Bundle, bundle) || !bytes.Equal(pending.Envelope, bundle) {
		t.Fatal("came back otherwise")
	}
}

// TestPackedRows stores a packed envelope and bundle, and reads them in every way.
// What an earlier version stored is read as it is.
func TestPackedRows(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	ctx := context.Background()
	p := testPending(1)
	p.Envelope = envelopeOf(statement(9000))
	bundle := envelopeOf(statement(9001))
	must(t, s.BeginAttestation(ctx, p))
	pending, err := s.PendingAttestations(ctx)
	must(t, err)
	diff(t, pending, []*Pending{p})
	one, err := s.PendingAttestation(ctx, p.ID)
	must(t, err)
	diff(t, one, p)
	must(t, s.CompleteAttestation(ctx, p.ID, 1, bundle, LogHead{}))
	list, _, err := s.ListAttestations(ctx, Query{IncludeBundles: true})
	must(t, err)
	bySHA256, _, err := s.AttestationsBySHA256(ctx, p.Record.Subjects[0].SHA256, "", 1)
	must(t, err)
	if !bytes.Equal(list[0].Bundle, bundle) || !bytes.Equal(bySHA256[0].Bundle, bundle) {
		t.Fatal("the bundle came back otherwise")
	}
	var stored []byte
	must(t, s.points.QueryRow("SELECT bundle FROM bundles").Scan(&stored))
	if len(stored) > 1000 {
		t.Fatalf("stored in %d bytes", len(stored))
	}

	update := func(b []byte) {
		t.Helper()
		must(t, s.w.do(ctx, 0, func(c *conn) error { _, err := c.exec("UPDATE bundles SET bundle = ?", b); return err }))
	}
	update(bundle)
	a, err := s.Attestation(ctx, p.ID)
	must(t, err)
	if !bytes.Equal(a.Bundle, bundle) {
		t.Fatal("an old row is read otherwise")
	}
	update(stored[:len(stored)-5])
	if _, err := s.Attestation(ctx, p.ID); !errors.Is(err, errPacked) {
		t.Fatalf("a damaged row: %v", err)
	}
}

// TestDamagedPacksStayBounded lets rows claim more than they hold.
func TestDamagedPacksStayBounded(t *testing.T) {
	p := newPacker()
	enc, err := p.encoder()
	must(t, err)
	bomb := enc.EncodeAll(make([]byte, 64<<20), nil)
	row := func(size uint64, frames ...[]byte) []byte {
		b := binary.AppendUvarint([]byte{packedPayload, 0, 0}, size)
		return append(b, bytes.Join(frames, nil)...)
	}
	for name, b := range map[string][]byte{
		"more than it says":    row(5000, bomb),
		"less than it says":    row(65<<20, bomb),
		"two frames":           row(64<<20, bomb, bomb),
		"three frames":         row(192<<20, bomb, bomb, bomb),
		"beyond the limit":     row(maxBlobBytes+1, bomb),
		"no frame":             row(5000),
		"a skippable frame":    row(5000, []byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}),
		"parts beyond the end": append([]byte{packedPayload, 0x80, 1, 0x80, 1, 0}, bomb[:20]...),
		"cut short":            row(64<<20, bomb[:len(bomb)-1]),
		"no sizes":             {packedPayload},
	} {
		got, err := p.unpack(b)
		if err == nil {
			t.Errorf("%s: unpacked to %d bytes", name, len(got))
		}
		if !errors.Is(err, errPacked) {
			t.Errorf("%s: %v is not errPacked", name, err)
		}
	}
}

func FuzzUnpackDocument(f *testing.F) {
	p := newPacker()
	for _, doc := range [][]byte{nil, {0}, {1}, []byte("{}"), envelopeOf(statement(5000)), envelopeOf(statement(100))} {
		packed, err := p.pack(doc)
		must(f, err)
		f.Add(packed)
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if doc, err := p.unpack(b); err == nil && len(doc) > 2*maxBlobBytes {
			t.Fatalf("%d bytes became %d", len(b), len(doc))
		}
		packed, err := p.pack(b)
		must(t, err)
		if back, err := p.unpack(packed); err != nil || !bytes.Equal(back, b) {
			t.Fatalf("%q became %q (%v)", b, back, err)
		}
	})
}
