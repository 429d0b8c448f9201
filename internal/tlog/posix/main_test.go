package posix_test

import (
	"flag"
	"os"
	"testing"

	"k8s.io/klog/v2"
)

// TestMain quietens Tessera's logger, and lets the test program serve as the
// process that the crash tests kill.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ASSAY_TEST_LOG_DIR"); dir != "" {
		appendUntilKilled(dir)
		return
	}
	fs := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(fs)
	if err := fs.Parse([]string{"-logtostderr=false", "-alsologtostderr=false", "-stderrthreshold=FATAL"}); err != nil {
		panic(err)
	}
	klog.SetOutput(devNull{})
	m.Run()
}

type devNull struct{}

func (devNull) Write(p []byte) (int, error) { return len(p), nil }
