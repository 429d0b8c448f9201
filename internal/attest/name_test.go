package attest

import (
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
)

func TestCheckSubjectName(t *testing.T) {
	good := []string{
		"a", "_", "app.tar.gz", "dist/app-1.0_amd64.deb", "ghcr.io/acme/app", "localhost:5000/app", "größe/世界.txt",
		"pkg:npm/%40scope/name@1.0.0", "a b", "..a", "a..", "a/..b/c", ".hidden", "...x", "100%2ex", "🎉.zip",
		"C", "CC:x", "1:x", strings.Repeat("x", 512),
	}
	for _, name := range good {
		if err := CheckSubjectName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	bad := []string{
		"", "../x", "..", ".", "./x", "x/.", "x/..", "a/../../b", "a/./b", "/abs", "//host/x", "a//b", "a/", "/",
		`..\x`, `..\\x`, `a\b`, `\\host\x`, "C:x", "c:/x", "z:", "%2e%2e", "%2E%2e/x", "a/.%2e/b", "%2e",
		"...", ". .", ".. /x", " ", "a/ /b",
		"a\x00b", "a\nb", "a\tb", "\x1b[31m", "a\x7fb", "a\u0085b",
		"evil\u202egnp.exe", "a\u2066b", "a\u200bb", "a\u200db", "a\ufeffb", "a\u00adb", "a\u2028b", "a\u00a0b",
		"a\u034fb", "a\u3164b", "a\u115fb", "a\ufe0fb", "a\u2800b", "a\U000e0041b", "a\ue000b",
		"a\xffb", "\xc0\xaf", strings.Repeat("x", 513), strings.Repeat("x", 4096), strings.Repeat("é", 257),
	}
	for _, name := range bad {
		if got := refusal.CodeOf(CheckSubjectName(name)); got != CodeSubjectNameInvalid {
			t.Errorf("%q: code %q, want %q", name, got, CodeSubjectNameInvalid)
		}
	}
}

// No text of a refusal carries the character it complains about to a terminal.
func TestSubjectNameRefusalIsPrintable(t *testing.T) {
	for _, name := range []string{"a\x1b[31m", "evil\u202egnp", `a\` + "\u202e", "c:\x07", "../\x1b"} {
		for _, r := range CheckSubjectName(name).Error() {
			if !visible(r) {
				t.Errorf("%q: the refusal has %U", name, r)
			}
		}
	}
}

func TestCheckDigest(t *testing.T) {
	tests := []struct {
		alg, value string
		want       refusal.Code
	}{
		{"sha256", hex256, ""},
		{"sha512", hex512, ""},
		{"sha384", hex512[:96], ""},
		{"sha1", hex256[:40], ""},
		{"md5", hex256[:32], ""},
		{"gitCommit", hex256[:40], ""},
		{"gitCommit", hex256, ""},
		{"goModuleH1", "h1:x+/=", ""},
		{"", hex256, CodeDigestInvalid},
		{"sha256", "", CodeDigestInvalid},
		{"sha256", hex256[1:], CodeDigestInvalid},
		{"sha256", hex256 + "0", CodeDigestInvalid},
		{"sha256", hex256[:63] + "g", CodeDigestInvalid},
		{"sha256", hex256[:63] + "A", CodeDigestInvalid},
		{"sha256", "0x" + hex256[2:], CodeDigestInvalid},
		{"sha256", " " + hex256[1:], CodeDigestInvalid},
		{"sha256", "sha256:" + hex256, CodeDigestInvalid},
		{"gitCommit", hex256[:50], CodeDigestInvalid},
		{"SHA256", hex256, CodeDigestInvalid},
		{"sha-256", hex256, CodeDigestInvalid},
		{"gitcommit", hex256[:40], CodeDigestInvalid},
		{"x y", "v", CodeDigestInvalid},
		{"ſha256", hex256, CodeDigestInvalid},
		{strings.Repeat("x", 65), "v", CodeDigestInvalid},
		{"x", "", CodeDigestInvalid},
		{"x", "a b", CodeDigestInvalid},
		{"x", "é", CodeDigestInvalid},
		{"x", strings.Repeat("v", 257), CodeDigestInvalid},
	}
	for _, tt := range tests {
		if got := refusal.CodeOf(CheckDigest(tt.alg, tt.value)); got != tt.want {
			t.Errorf("CheckDigest(%q, %q): code %q, want %q", tt.alg, tt.value, got, tt.want)
		}
	}
}

func TestParseDigestRef(t *testing.T) {
	alg, hex, err := ParseDigestRef("sha256:" + hex256)
	if err != nil || alg != "sha256" || hex != hex256 {
		t.Errorf("got %q, %q, %v", alg, hex, err)
	}
	for _, ref := range []string{"", ":", "sha256", "sha256:", hex256, "sha256:" + hex256[1:], "sha256:" + strings.ToUpper(hex256),
		"SHA256:" + hex256, "sha1:" + hex256[:40], "gitCommit:" + hex256[:40], "sha256:sha256:" + hex256, "x@sha256:" + hex256, " sha256:" + hex256} {
		if _, _, err := ParseDigestRef(ref); refusal.CodeOf(err) != CodeDigestInvalid {
			t.Errorf("%q: %v, want %s", ref, err, CodeDigestInvalid)
		}
	}
}
