package scan

import (
	"errors"
)

// errUnsupported is a file that is known and cannot be read here.
var errUnsupported = errors.New("not supported")

// readers are all that is known, in the order in which they are asked.
func readers() []reader {
	var all []reader
	for _, of := range []func() []reader{
		golangReaders, debianReaders, alpineReaders, rpmReaders, osReaders, otherReaders,
		npmReaders, pythonReaders,
		javaReaders, rustReaders, dotnetReaders, rubyReaders, phpReaders,
	} {
		all = append(all, of()...)
	}
	return all
}
