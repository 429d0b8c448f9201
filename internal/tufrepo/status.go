package tufrepo

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// RoleStatus is what is in force for one role.
type RoleStatus struct {
	Role      string    `json:"role"`
	Version   int64     `json:"version"`
	Expires   time.Time `json:"expires"`
	Threshold int       `json:"threshold"`
	KeyIDs    []string  `json:"key_ids"`
	// Signatures are the ids of the keys that a draft claims to be signed with.
	Signatures []string `json:"signatures,omitempty"`
}

// Status is the state of a repository.
type Status struct {
	// Roles are root, targets, snapshot and timestamp.
	Roles []RoleStatus `json:"roles"`
	// Files are the names of the targets.
	Files []string `json:"files"`
	// Warnings say what needs somebody's attention, empty where nothing does.
	Warnings []string `json:"warnings,omitempty"`
}

// Status describes what is served.
func (r *Repository) Status() Status {
	s := r.served.Load()
	root := s.root()
	st := Status{
		Roles: []RoleStatus{
			roleStatus(root, metadata.ROOT, root.Version, root.Expires),
			roleStatus(root, metadata.TARGETS, s.targets().Version, s.targets().Expires),
			roleStatus(root, metadata.SNAPSHOT, s.snap().Version, s.snap().Expires),
			roleStatus(root, metadata.TIMESTAMP, s.stamp().Version, s.stamp().Expires),
		},
		Files: slices.Sorted(maps.Keys(s.files)),
	}
	life := r.cfg.Expiry.orDefault()
	now := r.cfg.now()()
	for i, l := range []struct {
		life   time.Duration
		remedy string
	}{
		{life.Root, "sign a new root: assayd tuf rotate-root"},
		{life.Targets, "publish again: assayd tuf publish"},
		{life.Snapshot, "does the service run?"},
		{life.Timestamp, "does the service run?"},
	} {
		role := &st.Roles[i]
		left := role.Expires.Sub(now)
		switch {
		case left < 0:
			st.Warnings = append(st.Warnings, fmt.Sprintf("%s %d expired at %s, and clients refuse it; %s",
				role.Role, role.Version, role.Expires.Format(time.RFC3339), l.remedy))
		case left < l.life/4:
			st.Warnings = append(st.Warnings, fmt.Sprintf("%s %d expires at %s; %s",
				role.Role, role.Version, role.Expires.Format(time.RFC3339), l.remedy))
		}
	}
	return st
}

func roleStatus(root *metadata.RootType, role string, version int64, expires time.Time) RoleStatus {
	r := root.Roles[role]
	return RoleStatus{Role: role, Version: version, Expires: expires, Threshold: r.Threshold, KeyIDs: slices.Clone(r.KeyIDs)}
}
