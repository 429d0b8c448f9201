package sbom

// Inventory is what was found in one artifact. It is the plain form between a scan,
// which knows packages, and Encode, which knows CycloneDX.
type Inventory struct {
	// Format is what the artifact was recognised as, for example "go-binary", "jar",
	// "oci-layout", "docker-archive", "tar+gzip"; "" where nothing knew it.
	Format string `json:"format,omitempty"`
	// Components holds one entry per package URL, in the order of PURL.
	Components []Component `json:"components,omitempty"`
	// Root lists the package URLs that the artifact itself depends on: what no other
	// component brings in. In order, each once.
	Root []string `json:"root,omitempty"`
	// Incomplete says why something may be missing, in order of code and path, each
	// once. Empty where all that could be read was read.
	Incomplete []Reason `json:"incomplete,omitempty"`
	// Files and Bytes are what was looked into, nested archives included.
	Files int   `json:"files,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`
}

// Component is one package.
type Component struct {
	// PURL is the canonical package URL, with version and without subpath. It names
	// the component in the whole document.
	PURL string `json:"purl"`
	// Type is a component type of CycloneDX; "library" where empty.
	Type    string `json:"type,omitempty"`
	Group   string `json:"group,omitempty"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	// Hashes are those that the ecosystem recorded, of the package as it was published.
	Hashes []Hash `json:"hashes,omitempty"`
	// Licenses are what the package says of itself: each an SPDX expression, or text
	// where it is none. All of them apply. In order, each once.
	Licenses []string `json:"licenses,omitempty"`
	// Scope is "required", "optional" or "excluded" (not part of what runs, such as
	// development dependencies that only a lock names); "" where nothing says.
	Scope string `json:"scope,omitempty"`
	// DependsOn lists the PURLs of other components of the inventory.
	DependsOn []string `json:"dependsOn,omitempty"`
	// Locations are paths inside the artifact, at most MaxLocations; "!/" leads into a
	// nested archive, as in "app.war!/WEB-INF/lib/log4j-core-2.14.1.jar".
	Locations []string `json:"locations,omitempty"`
}

// Hash is a digest by an algorithm of CycloneDX: "SHA-1", "SHA-256", "SHA-384", "SHA-512", "MD5".
type Hash struct {
	Algorithm string `json:"alg"`
	// Value is lower-case hex.
	Value string `json:"value"`
}

// Reason says why an inventory is not complete.
type Reason struct {
	Code ReasonCode `json:"code"`
	// Path is where in the artifact; "" for the whole of it.
	Path string `json:"path,omitempty"`
	// Detail is for people: one line, at most 200 bytes, the same each time.
	Detail string `json:"detail,omitempty"`
}

// ReasonCode is a stable word. Policies can ask for it.
type ReasonCode string

// Why an inventory is not complete.
const (
	// ReasonEntries: more files or archive members than the limit.
	ReasonEntries ReasonCode = "entries-limit"
	// ReasonFileSize: one member is larger than what may be read of a file.
	ReasonFileSize ReasonCode = "file-size-limit"
	// ReasonTotalSize: what the archives hold unpacked is more than the limit.
	ReasonTotalSize ReasonCode = "total-size-limit"
	// ReasonRatio: an archive unpacks to implausibly many times its size.
	ReasonRatio ReasonCode = "ratio-limit"
	// ReasonDepth: archives in archives beyond the limit.
	ReasonDepth ReasonCode = "depth-limit"
	// ReasonTime: the scan took longer than it may.
	ReasonTime ReasonCode = "time-limit"
	// ReasonMemory: the scan needed more memory than it may have.
	ReasonMemory ReasonCode = "memory-limit"
	// ReasonComponents: more packages than the limit.
	ReasonComponents ReasonCode = "components-limit"
	// ReasonMalformed: an archive or a package file that cannot be read to its end.
	ReasonMalformed ReasonCode = "malformed"
	// ReasonEncrypted: a member that is encrypted.
	ReasonEncrypted ReasonCode = "encrypted"
	// ReasonUnsafePath: a member whose name leads out of the archive, or stands for
	// two things; it was left out.
	ReasonUnsafePath ReasonCode = "unsafe-path"
	// ReasonUnsupported: a format or compression that is known and cannot be read.
	ReasonUnsupported ReasonCode = "unsupported"
	// ReasonFailed: a reader failed on a file that it should have read.
	ReasonFailed ReasonCode = "reader-failed"
	// ReasonCrashed: the scanning process ended without an answer.
	ReasonCrashed ReasonCode = "scanner-crashed"
	// ReasonOpaque: nothing was found that anybody knows how to look into.
	ReasonOpaque ReasonCode = "opaque"
)

// Limits of an inventory.
const (
	MaxComponents   = 200_000
	MaxLocations    = 8
	MaxReasons      = 64
	MaxTextBytes    = 1 << 10 // of a name, a version, a licence, a path
	MaxDependencies = 4 << 10 // of one component
)

// Complete reports whether all that could be read was read, and something was found.
func (inv *Inventory) Complete() bool { return len(inv.Incomplete) == 0 && len(inv.Components) > 0 }
