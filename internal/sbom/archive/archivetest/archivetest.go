// Package archivetest makes hostile archives: one file for each way in which an archive is
// known to have harmed who reads it. Every reader of artifacts is tried on the same set,
// in the process and through the child process that scans.
//
//	cases, err := archivetest.Hostile(t.TempDir())
//	for _, c := range cases {
//		// read c.Path; the reasons must be c.Want
//	}
//
// The files are the same each time but for the folder they are in. They take about 300 MB,
// most of it holes.
package archivetest

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/assay-build/assay/internal/sbom"
)

// Case is one hostile archive.
type Case struct {
	// Name says what is wrong with it.
	Name string
	// Path is where it lies.
	Path string
	// Want are the codes of the reasons that who reads all of it must give, in order. None
	// where the archive only looks dangerous.
	Want []sbom.ReasonCode
	// Large is set where the archive takes more than a moment: its size, or what it
	// claims, is the attack.
	Large bool
}

// writer makes the content of one case.
type writer func(f *os.File) error

// recipe is a case that is not written yet. ext says what the file pretends to be.
type recipe struct {
	name, ext string
	write     writer
	large     bool
	want      []sbom.ReasonCode
}

// Hostile writes all cases into dir.
func Hostile(dir string) ([]Case, error) {
	return Select(dir, func(Case) bool { return true })
}

// Small writes those that are not Large.
func Small(dir string) ([]Case, error) {
	return Select(dir, func(c Case) bool { return !c.Large })
}

// Select writes those that keep asks for; it is asked before they are made.
func Select(dir string, keep func(Case) bool) ([]Case, error) {
	var made []Case
	for _, recipes := range [][]recipe{zipNames(), zipStructure(), zipBombs(), zipTwice(), tars(), tarTwice(), both(), streams(), images(), packages()} {
		for _, r := range recipes {
			c := Case{Name: r.name, Path: filepath.Join(dir, r.name+r.ext), Want: r.want, Large: r.large}
			if !keep(c) {
				continue
			}
			if err := writeFile(c.Path, r.write); err != nil {
				return nil, fmt.Errorf("archivetest: %s: %w", r.name, err)
			}
			made = append(made, c)
		}
	}
	return made, nil
}

func writeFile(p string, write writer) error {
	f, err := os.Create(p)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// content writes bytes that are at hand.
func content(make func() ([]byte, error)) writer {
	return func(f *os.File) error {
		data, err := make()
		if err == nil {
			_, err = f.Write(data)
		}
		return err
	}
}

func codes(c ...sbom.ReasonCode) []sbom.ReasonCode { return c }
