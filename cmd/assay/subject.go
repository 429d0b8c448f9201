package main

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/assay-build/assay/client"
	"github.com/assay-build/assay/internal/attest"
)

// bundleSuffix ends the name of every bundle file, as Sigstore's tools expect.
const bundleSuffix = ".sigstore.json"

// What ends the names of signatures that stand beside a bundle.
const (
	notarySuffix = ".notary.jws.json"
	mldsaSuffix  = ".ml-dsa-65.sig"
)

// detachedSuffix is that of a kind of signature, "" for one that has no file.
func detachedSuffix(kind string) string {
	switch kind {
	case "application/jose+json":
		return notarySuffix
	case "ML_DSA_65":
		return mldsaSuffix
	}
	return ""
}

// ownFile reports whether a name is of a file that attest puts next to artifacts.
func ownFile(name string) bool {
	return slices.ContainsFunc([]string{bundleSuffix, notarySuffix, mldsaSuffix}, func(s string) bool { return strings.HasSuffix(name, s) })
}

// subjectArg is a SUBJECT from the command line: a path, or a digest with or
// without a name.
type subjectArg struct {
	path   string
	name   string
	sha256 string
}

// parseSubject reads PATH, sha256:HEX or NAME@sha256:HEX. What looks like a
// digest is one, or is refused: it is never tried as a path, so a file cannot be
// put in the place of a digest. A file of such a name is reached as ./sha256:….
func parseSubject(arg string) (subjectArg, error) {
	if arg == "" {
		return subjectArg{}, usage("an empty SUBJECT", "a SUBJECT is a path, sha256:HEX or NAME@sha256:HEX")
	}
	name, ref, isRef := "", arg, strings.HasPrefix(arg, "sha256:")
	if i := strings.LastIndex(arg, "@sha256:"); i >= 0 && !strings.HasPrefix(arg, "./") && !strings.HasPrefix(arg, "/") {
		name, ref, isRef = arg[:i], arg[i+1:], true
		if err := attest.CheckSubjectName(name); err != nil {
			return subjectArg{}, usage(fmt.Sprintf("SUBJECT %q: %v", arg, err), "")
		}
	}
	if !isRef {
		return subjectArg{path: arg}, nil
	}
	_, digest, err := attest.ParseDigestRef(ref)
	if err != nil {
		return subjectArg{}, usage(fmt.Sprintf("SUBJECT %q: %v", arg, err),
			"a digest is sha256: and 64 lower-case hex digits; a file of that name is ./"+arg)
	}
	return subjectArg{name: name, sha256: digest}, nil
}

// parseDigestFlag reads the value of attest --digest, where the name is required.
func parseDigestFlag(value string) (client.Subject, error) {
	s, err := parseSubject(value)
	if err != nil {
		return client.Subject{}, err
	}
	if s.path != "" || s.name == "" {
		return client.Subject{}, usage(fmt.Sprintf("--digest %q is not NAME@sha256:HEX", value), "")
	}
	return client.Subject{Name: s.name, SHA256: s.sha256}, nil
}

// resolve turns a SUBJECT into a digest, hashing the file it names.
func (s subjectArg) resolve() (client.Subject, error) {
	if s.path == "" {
		return client.Subject{Name: s.name, SHA256: s.sha256}, nil
	}
	digest, err := client.HashFile(s.path)
	if err != nil {
		return client.Subject{}, err
	}
	// The name is for people; a file whose name no statement may carry is
	// verified by its digest alone.
	name := filepath.Base(s.path)
	if attest.CheckSubjectName(name) != nil {
		name = ""
	}
	return client.Subject{Name: name, SHA256: digest}, nil
}

// label is how the answer calls a subject, beside its digest.
func (s subjectArg) label() string {
	if s.path != "" {
		return s.path
	}
	return s.name
}

// collectArtifacts turns the PATHs of attest into artifacts. A file is named by
// the last part of its path, a file in a directory by its path below that
// directory. skipped lists what was found in directories and left out.
func collectArtifacts(paths []string) (artifacts []client.Artifact, skipped []string, err error) {
	from := make(map[string]string)
	add := func(name, file string) error {
		if other, taken := from[name]; taken {
			return usage(fmt.Sprintf("%s and %s would both be named %q", other, file, name),
				"attest them one after the other, or give the directory above both")
		}
		if err := attest.CheckSubjectName(name); err != nil {
			return usage(fmt.Sprintf("%s: %v", file, err), "rename the file")
		}
		if len(from) == client.MaxSubjects {
			return usage(fmt.Sprintf("more than %d artifacts", client.MaxSubjects),
				"one attestation covers at most that many; attest an archive of them, or parts")
		}
		from[name] = file
		artifacts = append(artifacts, client.Artifact{Name: name, Path: file})
		return nil
	}
	for _, p := range paths {
		info, err := os.Stat(p)
		switch {
		case err != nil:
			return nil, nil, usage(err.Error(), "")
		case info.IsDir():
			left, err := walk(p, add)
			if err != nil {
				return nil, nil, err
			}
			skipped = append(skipped, left...)
		case !info.Mode().IsRegular():
			return nil, nil, usage(p+" is not a regular file", "")
		default:
			if err := add(filepath.Base(filepath.Clean(p)), p); err != nil {
				return nil, nil, err
			}
		}
	}
	return artifacts, skipped, nil
}

// walk adds the regular files below dir. Links are left out, for they lead out of
// what was asked for; so are bundles and signatures, which attest itself put there.
func walk(dir string, add func(name, file string) error) (skipped []string, err error) {
	found := 0
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		file := filepath.Join(dir, filepath.FromSlash(name))
		switch {
		case err != nil:
			return usage(err.Error(), "")
		case d.IsDir():
			return nil
		case !d.Type().IsRegular() || ownFile(path.Base(name)):
			skipped = append(skipped, file)
			return nil
		}
		found++
		return add(name, file)
	})
	if err == nil && found == 0 {
		err = usage(dir+" holds no regular file to attest", "")
	}
	return skipped, err
}
