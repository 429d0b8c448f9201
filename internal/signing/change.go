package signing

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeKeyChangeInvalid refuses a change of the keyset that makes no sense as it is asked for.
	CodeKeyChangeInvalid refusal.Code = "KEY_CHANGE_INVALID"
	// CodeKeyNotFound refuses a change of a key that the keyset does not have.
	CodeKeyNotFound refusal.Code = "KEY_NOT_FOUND"
	// CodeKeyInUse refuses to take a key out of use without another in its place.
	CodeKeyInUse refusal.Code = "KEY_IN_USE"
	// CodeKeyReused refuses a key that the keyset has or had.
	CodeKeyReused refusal.Code = "KEY_REUSED"
)

const (
	// defaultOverlap is how long signatures under way when a key is replaced still count.
	defaultOverlap = 10 * time.Minute
	maxOverlap     = 366 * 24 * time.Hour
	// minIDPrefix is how much of a key id names the key.
	minIDPrefix = 8

	refGenerate = "file"
)

// Change is one thing to do to a keyset: AddKey, RotateKey, RetireKey or RevokeKey.
type Change interface{ plan(p *planner) error }

// AddKey adds a key. It is active where its role and tier have no active key, unless
// Next; else it is next: published to verifiers, and waiting for RotateKey.
type AddKey struct {
	Role Role
	Tier Tier
	// Ref is awskms:///…, or "file" or empty for a new key in a file.
	Ref string
	// Next has the key published only, even where there is none that signs.
	Next bool
	// SkipTrial leaves out the trial signature by a key in AWS KMS, for an operator who
	// may not sign with it. That the service may is then found when it does.
	SkipTrial bool
}

// RotateKey has another key sign for a role and tier from now on. The key that did
// becomes verify-only.
type RotateKey struct {
	Role Role
	Tier Tier
	// Ref is where the new key is. If it is empty, the next key is promoted; or else
	// the alias that the old key was found by is asked again; or else, for a key in a
	// file, a new one is made.
	Ref string
	// Overlap is how long the old key's signatures still count, for those that are
	// under way; 10 minutes if zero, but to the end of the second for the log, which
	// stands still.
	Overlap   time.Duration
	SkipTrial bool
}

// RetireKey makes a key verify-only: what it signs after At does not count. A key that
// must have a successor is not retired but rotated.
type RetireKey struct {
	KeyID string // or at least its first 8 characters
	At    time.Time
}

// RevokeKey withdraws belief in a key, as the reason says (see the package comment).
type RevokeKey struct {
	KeyID string // or at least its first 8 characters
	// Since is the moment from which the key is not believed; now if zero.
	Since  time.Time
	Reason Reason
	// Rotate makes a successor for an active key where none is next.
	Rotate    bool
	SkipTrial bool
}

// planner works one change into a copy of the keyset.
type planner struct {
	ctx  context.Context
	dir  string
	cfg  Config
	now  time.Time // whole seconds
	next *keysetFile

	// fresh is the key to be made when the change is applied, nil if there is none. Until
	// then its record, at freshAt, is a stand-in.
	fresh   *newKey
	freshAt int
	// promoted is the index of a next key that becomes active, -1 if there is none.
	promoted int
	untested bool
}

func (c AddKey) plan(p *planner) error {
	s := slot{c.Role, c.Tier}
	if err := checkSlot(s); err != nil {
		return refusal.New(CodeKeyChangeInvalid, "%w", err)
	}
	state := StateActive
	if c.Next || p.next.has(s) {
		state = StateNext
	}
	if i := p.next.index(s, StateNext); state == StateNext && i >= 0 {
		return refusal.New(CodeKeyChangeInvalid, "key %s is next already for %s; rotate to it or retire it", p.next.Keys[i].KeyID, s)
	}
	p.untested = c.SkipTrial
	return p.join(s, state, c.Ref)
}

func (c RotateKey) plan(p *planner) error {
	s := slot{c.Role, c.Tier}
	if err := checkSlot(s); err != nil {
		return refusal.New(CodeKeyChangeInvalid, "%w", err)
	}
	if c.Overlap < 0 || c.Overlap > maxOverlap {
		return refusal.New(CodeKeyChangeInvalid, "overlap %s is not from 0 to %s", c.Overlap, maxOverlap)
	}
	p.untested = c.SkipTrial
	old := p.next.index(s, StateActive)
	if old < 0 && (c.Ref != "" || p.next.index(s, StateNext) < 0) {
		return refusal.New(CodeKeyNotFound, "%s has no active key that could be rotated; add one", s)
	}
	overlap := c.Overlap
	switch {
	case overlap > 0:
	case s.role == RoleLog:
		overlap = time.Second // SCTs of this second bear its milliseconds, and p.now does not
	default:
		overlap = defaultOverlap
	}
	if err := p.succeed(s, old, c.Ref); err != nil || old < 0 {
		return err
	}
	return p.end(old, p.now.Add(overlap.Truncate(time.Second)))
}

func (c RetireKey) plan(p *planner) error {
	i, err := p.find(c.KeyID)
	if err != nil {
		return err
	}
	r := &p.next.Keys[i]
	at := wholeSecond(c.At)
	if c.At.IsZero() {
		at = p.now.Add(defaultOverlap)
	}
	if at.Before(p.now) {
		return refusal.New(CodeKeyChangeInvalid, "%s is past, and taking back what was signed since is a revocation", stamp(at))
	}
	switch r.State {
	case StateActive:
		if r.slot().required() {
			return refusal.New(CodeKeyInUse, "key %s is the active one of %s, which cannot be without; rotate it", r.KeyID, r.slot())
		}
	case StateVerifyOnly:
		if c.At.IsZero() || !at.Before(r.NotAfter) {
			return refusal.New(CodeKeyChangeInvalid, "key %s is retired, with effect from %s; its end can only be brought forward", r.KeyID, stamp(r.NotAfter))
		}
	case StateRevoked:
		return refusal.New(CodeKeyChangeInvalid, "key %s is revoked since %s", r.KeyID, stamp(r.Revoked.Since))
	}
	return p.end(i, at)
}

func (c RevokeKey) plan(p *planner) error {
	if !slices.Contains(Reasons(), c.Reason) {
		return refusal.New(CodeKeyChangeInvalid, "reason %q is not one of %v", c.Reason, Reasons())
	}
	i, err := p.find(c.KeyID)
	if err != nil {
		return err
	}
	since := wholeSecond(c.Since)
	if c.Since.IsZero() {
		since = p.now
	}
	if since.After(p.now) {
		return refusal.New(CodeKeyChangeInvalid, "since %s is in the future; retire the key with that end", stamp(since))
	}
	r := &p.next.Keys[i]
	if old := r.Revoked; old != nil && (c.Reason.grave() < old.Reason.grave() || since.After(old.Since)) {
		return refusal.New(CodeKeyChangeInvalid, "key %s is revoked since %s for %s, which can be made graver or earlier, not taken back", r.KeyID, stamp(old.Since), old.Reason)
	}
	if r.State == StateActive {
		p.untested = c.SkipTrial
		if !c.Rotate && p.next.index(r.slot(), StateNext) < 0 {
			return refusal.New(CodeKeyInUse, "key %s is the active one of %s and no key is next; revoke it with rotation, or add a key first", r.KeyID, r.slot())
		}
		if err := p.succeed(r.slot(), i, ""); err != nil {
			return err
		}
		r = &p.next.Keys[i]
	}
	end := since
	if end.Before(r.NotBefore) {
		end = r.NotBefore
	}
	if r.NotAfter.IsZero() || end.Before(r.NotAfter) {
		r.NotAfter = end
	}
	r.State, r.Revoked = StateRevoked, &Revocation{Since: since, Reason: c.Reason}
	return nil
}

// succeed finds the key that signs for s from now on; old is the index of the one that
// did, -1 if there was none.
func (p *planner) succeed(s slot, old int, ref string) error {
	if ref != "" {
		return p.join(s, StateActive, ref)
	}
	if i := p.next.index(s, StateNext); i >= 0 {
		r := &p.next.Keys[i]
		if p.now.Before(r.NotBefore) {
			return p.early(r)
		}
		if s.role == RoleLog {
			r.Shard = p.next.nextShard()
		}
		r.State, p.promoted = StateActive, i
		return nil
	}
	switch o := p.next.Keys[old]; {
	case o.Alias != "":
		return p.join(s, StateActive, o.Alias)
	case isKMS(o.Ref):
		return refusal.New(CodeKeyChangeInvalid, "key %s is in AWS KMS and was not found by an alias that could name another now; say where the new key is", o.KeyID)
	}
	return p.join(s, StateActive, refGenerate)
}

// join adds a key to the plan.
func (p *planner) join(s slot, state State, ref string) error {
	n := &newKey{slot: s, state: state, start: p.now, untested: p.untested}
	r := keyRecord{Role: s.role, Tier: s.tier, State: state, NotBefore: p.now}
	switch {
	case ref == "" || ref == refGenerate:
	case !isKMS(ref):
		return refusal.New(CodeKeyRefInvalid, "%q is neither file nor awskms:///…", ref)
	case p.cfg.Openers.Resolve == nil:
		return refusal.New(CodeKeySchemeUnsupported, "this program was not set up to reach keys in AWS KMS")
	default:
		found, err := p.cfg.Openers.Resolve(p.ctx, ref)
		if err != nil {
			return err
		}
		e, err := found.entry(s)
		if err != nil {
			return err
		}
		for _, known := range p.next.Keys {
			if known.KeyID == e.KeyID {
				return refusal.New(CodeKeyReused, "%s is key %s, which is %s for %s already; a key does not come back", ref, e.KeyID, known.State, known.slot())
			}
		}
		r.KeyID, r.Ref, r.Alias, n.found = e.KeyID, e.Ref, e.Alias, &found
	}
	if s.role == RoleLog && state == StateActive {
		r.Shard = p.next.nextShard()
	}
	p.fresh, p.freshAt = n, len(p.next.Keys)
	p.next.Keys = append(p.next.Keys, r)
	return nil
}

// end makes the key at i verify-only.
func (p *planner) end(i int, at time.Time) error {
	r := &p.next.Keys[i]
	if at.Before(r.NotBefore) {
		return p.early(r)
	}
	r.State, r.NotAfter = StateVerifyOnly, at
	return nil
}

func (p *planner) early(r *keyRecord) error {
	return refusal.New(CodeKeyChangeInvalid, "the clock says %s and key %s begins at %s", stamp(p.now), r.KeyID, stamp(r.NotBefore))
}

// find returns the index of the key that id names.
func (p *planner) find(id string) (int, error) {
	found := -1
	for i, r := range p.next.Keys {
		if r.KeyID == id {
			return i, nil
		}
		if len(id) < minIDPrefix || !strings.HasPrefix(r.KeyID, id) {
			continue
		}
		if found >= 0 {
			return -1, refusal.New(CodeKeyNotFound, "more than one key begins with %.64q; write more of its id", id)
		}
		found = i
	}
	if found < 0 {
		return -1, refusal.New(CodeKeyNotFound, "there is no key %.64q; give its id or %d characters of it at least", id, minIDPrefix)
	}
	return found, nil
}
