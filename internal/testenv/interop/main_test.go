package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFlip(t *testing.T) {
	t.Parallel()
	const text = `{"sig":"MEUCIQDxxxxxxxxxAAAAAAAAAAAAAAAA==", "hashes":["AAAAAAAAAAAAAAAAAAAA","BBBBBBBBBBBBBBBBBBBB"], "short":"AA=="}`
	for _, field := range []string{"sig", "hashes"} {
		got, err := flip([]byte(text), field)
		if err != nil {
			t.Fatal(err)
		}
		differ := 0
		for i := range got {
			if got[i] != text[i] {
				differ++
				if i < strings.Index(text, field) {
					t.Errorf("%s: changed in front of the field", field)
				}
			}
		}
		if differ != 1 || len(got) != len(text) {
			t.Errorf("%s: %d characters differ", field, differ)
		}
	}
	for _, field := range []string{"none", "short"} {
		if _, err := flip([]byte(text), field); err == nil {
			t.Errorf("%s: flipped", field)
		}
	}
}

func TestGraft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a := write("a", `{"dsseEnvelope":{"payload":"QQ=="},"verificationMaterial":{"n":1}}`)
	b := write("b", `{"dsseEnvelope":{"payload":"Qg=="},"verificationMaterial":{"n":2}}`)
	if err := graftFile(a, b, dir+"/c"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(dir + "/c")
	if want := `{"dsseEnvelope":{"payload":"QQ=="},"verificationMaterial":{"n":2}}`; err != nil || string(got) != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

// A mistake in the call must not look like a refusal: the script would take it for one.
func TestWrongUseIsNoRefusal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	artifact, bundle := file("a", "a"), file("b.json", "{}")
	root := file("root.json", `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)
	good := []string{"verify", "--bundle", bundle, "--trusted-root", root, "--type", "cyclonedx"}
	byName := []string{"--certificate-identity", "x", "--certificate-oidc-issuer", "y"}
	with := func(more ...string) []string { return append(append([]string{}, good...), more...) }
	for name, args := range map[string][]string{
		"nothing": nil, "unknown command": {"check"}, "flip of nothing": {"flip", "a"}, "flip without field": {"flip", bundle, "x", dir + "/o"},
		"graft of nothing": {"graft", bundle}, "graft of no bundle": {"graft", bundle, artifact, dir + "/o"},
		"no identity": with(artifact), "no artifact": with(byName...), "no such artifact": with(append(byName, dir+"/none")...),
		"both": with(append(byName, "--key", artifact, artifact)...), "key is no key": with("--key", artifact, artifact),
		"unknown flag": with("--nope", artifact), "half an identity": with("--certificate-identity", "x", artifact),
		"unknown type": with(append(byName, "--type", "custom", artifact)...), "no bundle": with(append(byName, "--bundle", dir+"/none", artifact)...),
		"no root": with(append(byName, "--trusted-root", dir+"/none", artifact)...),
	} {
		var out, errs bytes.Buffer
		if code := run(args, &out, &errs); code != 2 {
			t.Errorf("%s: exit code %d: %s", name, code, errs.String())
		}
	}
	var out, errs bytes.Buffer
	if code := run(with(append(byName, artifact)...), &out, &errs); code != 1 {
		t.Errorf("an empty bundle: exit code %d: %s", code, errs.String())
	}
}
