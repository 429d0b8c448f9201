package signing

import (
	"fmt"
	"strings"
)

// effects compares the keyset before and after a change by what verifiers see of it.
func effects(p *planner, base *keysetFile) []string {
	d := &difference{p: p}
	slots := []slot{}
	for _, role := range Roles() {
		for _, tier := range Tiers() {
			slots = append(slots, slot{role, tier})
		}
	}
	for _, s := range slots {
		before, after := base.index(s, StateActive), p.next.index(s, StateActive)
		if before != after {
			d.signs(s, before, after)
		}
	}
	for i := range p.next.Keys {
		var before *view
		if i < len(base.Keys) {
			before = viewOf(base.Keys[i])
		}
		d.seen(i, before, viewOf(p.next.Keys[i]))
	}
	d.distribute()
	return d.out
}

// view is what verifiers see of one key.
type view struct {
	window
	believed bool
	plain    bool // in lists without times
}

func viewOf(r keyRecord) *view {
	e := KeyEntry{Role: r.Role, State: r.State, NotBefore: r.NotBefore, NotAfter: r.NotAfter, Revoked: r.Revoked}
	w, ok := e.believed()
	return &view{w, ok, e.plain()}
}

// difference collects what changes.
type difference struct {
	p    *planner
	out  []string
	root bool // the trusted root is another
	keys bool // the keys beside it are others
	stop bool // the service must not run meanwhile
}

func (d *difference) say(format string, args ...any) {
	d.out = append(d.out, fmt.Sprintf(format, args...))
}

// name is how a key is spoken of.
func (d *difference) name(i int) string {
	r := d.p.next.Keys[i]
	if r.KeyID == "" {
		return "a new key in a file"
	}
	if d.p.fresh != nil && i == d.p.freshAt {
		return "key " + shortID(r.KeyID) + " at " + r.Ref
	}
	return "key " + shortID(r.KeyID)
}

func shortID(id string) string { return id[:min(len(id), 12)] }

// signs tells who signs for s from now on.
func (d *difference) signs(s slot, before, after int) {
	when := "as soon as the service looks at its keyset again, which it does by itself"
	if s.role == RoleLog {
		d.stop = true
		when = "when the service starts again, in a new log in folder " + d.p.next.Keys[after].Shard
	}
	switch {
	case before < 0:
		d.say("%s: %s signs, %s.", s, d.name(after), when)
	case after < 0 && s.tier != "" && d.p.next.has(slot{s.role, TierDefault}):
		d.say("%s: key %s no longer signs; the key of the default tier does, %s.", s, shortID(d.p.next.Keys[before].KeyID), when)
	case after < 0:
		d.say("%s: key %s no longer signs, and no other does, %s.", s, shortID(d.p.next.Keys[before].KeyID), when)
	default:
		d.say("%s: %s signs in place of %s, %s.", s, d.name(after), shortID(d.p.next.Keys[before].KeyID), when)
	}
	if after < 0 && s.role == RoleCA && !d.p.next.has(slot{RoleCA, TierDefault}) {
		d.say("In certificate mode nothing can be attested from then on, until another certificate authority is added (assayd keys add ca).")
	}
	if before >= 0 {
		d.unused(d.p.next.Keys[before])
	}
}

// unused tells what may be destroyed.
func (d *difference) unused(r keyRecord) {
	if isKMS(r.Ref) {
		d.say("Nothing signs with %s any more once that has happened; it can be disabled then.", strings.TrimPrefix(r.Ref, kmsScheme))
	} else if r.Ref != "" {
		d.say("Nothing signs with the file %s any more once that has happened; destroy it then, copies too.", strings.TrimPrefix(r.Ref, fileScheme))
	}
}

// seen tells what verifiers see of the key at i.
func (d *difference) seen(i int, before, after *view) {
	r := d.p.next.Keys[i]
	if before != nil && *before == *after && d.p.promoted != i {
		return
	}
	list, changed := "the verifier keys", &d.keys
	switch r.Role {
	case RoleLog, RoleTimestamp, RoleCA:
		list, changed = "the trusted root", &d.root
	}
	if before == nil {
		*changed = true
		d.appears(i, r, list)
		return
	}
	if *before == *after {
		return // promoted: verifiers have known it
	}
	*changed = true
	name := d.name(i)
	switch {
	case !after.believed && r.Role == RoleLog:
		d.say("%s leaves %s. Everything that this log has recorded stops verifying: all entries, all inclusion promises, all timestamps in certificates.", capital(name), list)
	case !after.believed && r.Role == RoleTimestamp:
		d.say("%s leaves %s. Every signature whose time only this authority vouches for stops verifying.", capital(name), list)
	case !after.believed && r.Role == RoleCA:
		d.say("%s leaves %s. Every certificate that it and its intermediates issued stops verifying, whenever it was used.", capital(name), list)
	case !after.believed:
		d.say("%s stays in %s as revoked. Nothing that it signed verifies, whenever that was.", capital(name), list)
	case !after.revoked.IsZero() && r.Role == RoleCA:
		d.say("%s: certificates that were used before %s verify; what was signed under it at that moment or later is refused.", capital(name), stamp(after.revoked))
	case !after.revoked.IsZero():
		d.say("%s: signatures witnessed before %s verify; those of that moment and later are refused.", capital(name), stamp(after.revoked))
	default:
		d.say("%s: signatures up to %s verify; later ones are refused.", capital(name), stamp(after.to))
	}
	if before.plain && !after.plain && r.Role == RoleAttestation {
		d.say("%s leaves the PEM list of attestation keys, which has no times: verifiers that use only the list refuse all that it signed.", capital(name))
	}
}

// appears tells of a key that verifiers did not know.
func (d *difference) appears(i int, r keyRecord, list string) {
	state := "signing"
	if r.State == StateNext {
		state = "not signing yet"
	}
	switch r.Role {
	case RoleCA:
		d.say("%s joins the certificate authorities (%s); it is in %s from its first intermediate on.", capital(d.name(i)), state, list)
	default:
		d.say("%s joins %s, from %s on (%s).", capital(d.name(i)), list, stamp(r.NotBefore), state)
	}
}

// distribute tells what has to reach whom.
func (d *difference) distribute() {
	if d.root {
		d.say("Verifiers need the new trusted root (GetTrustedRoot, assay trusted-root, assayd tuf publish): with the old one they refuse what new keys sign and believe what old keys sign.")
	}
	if d.keys {
		d.say("Verifiers need the new verifier keys (GetTrustedRoot, assay trusted-root --format pem, assayd tuf publish): with the old ones they refuse what new keys sign and believe what old keys sign.")
	}
	switch {
	case d.stop:
		d.say("The service must be stopped for this, and started afterwards.")
	default:
		d.say("The service needs no restart.")
	}
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
