package store

import (
	"context"
	"database/sql"
)

// versionsRead is how many components one query reads. Between two of them another
// list may have the connection.
const versionsRead = 1000

// EachComponentVersion calls f with the components of a name until f returns false, in
// the order in which the dictionary came to know them: whoever adds versions, however
// many, adds them behind those that were there. They are of any type and namespace. A
// component may be among them that no visible SBOM holds.
func (s *Store) EachComponentVersion(ctx context.Context, name string, f func(ComponentVersion) bool) error {
	return eachVersion(func(after int64) (*sql.Rows, error) {
		return s.get.byName.QueryContext(ctx, name, after, versionsRead)
	}, f)
}

// EachComponentOfVersion is EachComponentVersion of one package and version, by its very
// spelling: package URLs that differ in qualifiers only. Other versions, however many,
// cost it nothing.
func (s *Store) EachComponentOfVersion(ctx context.Context, typ, namespace, name, version string, f func(ComponentVersion) bool) error {
	return eachVersion(func(after int64) (*sql.Rows, error) {
		return s.get.byVersion.QueryContext(ctx, name, typ, namespace, version, after, versionsRead)
	}, f)
}

// ComponentVersions are the first of EachComponentVersion, at most limit and
// MaxSearchComponents of them. An empty type or namespace stands for any. More says that
// there are others.
func (s *Store) ComponentVersions(ctx context.Context, typ, namespace, name string, limit int) (list []ComponentVersion, more bool, err error) {
	if limit <= 0 || limit > MaxSearchComponents {
		limit = MaxSearchComponents
	}
	err = s.EachComponentVersion(ctx, name, func(v ComponentVersion) bool {
		if typ != "" && typ != v.Type || namespace != "" && namespace != v.Namespace {
			return true
		}
		if more = len(list) == limit; !more {
			list = append(list, v)
		}
		return !more
	})
	return list, more, err
}

// The order of ids is that of either index, where all its columns are given: no query
// sorts, or reads more rows than it returns.
const (
	versionsByName = "SELECT " + versionColumns + ` FROM components INDEXED BY components_only_name
		WHERE name = ?1 AND id > ?2 ORDER BY id LIMIT +?3`
	versionsByVersion = "SELECT " + versionColumns + ` FROM components INDEXED BY components_name
		WHERE name = ?1 AND type = ?2 AND namespace = ?3 AND version = ?4 AND id > ?5 ORDER BY id LIMIT +?6`
)

func eachVersion(read func(after int64) (*sql.Rows, error), f func(ComponentVersion) bool) error {
	for after := int64(0); ; {
		rows, err := read(after)
		if err != nil {
			return refused(err)
		}
		list, err := collect(rows, scanVersion)
		if err != nil {
			return err
		}
		for _, v := range list {
			if !f(v) {
				return nil
			}
		}
		if len(list) < versionsRead {
			return nil
		}
		after = list[len(list)-1].ID
	}
}
