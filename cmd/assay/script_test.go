package main

import (
	"encoding/json"
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/testenv"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestScript runs the program as its users do, as a process. Each script has a
// real server of its own and the environment of a job; two commands are added:
//
//	code N assay …      run and check the exit code
//	id VAR NAME         set VAR to the id of the attestation whose subject is NAME
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			if strings.Contains(e.WorkDir, "script-usage") {
				return nil // Misuse is found before any server is asked.
			}
			for _, kv := range testenv.New(e.T().(testing.TB)).Env() {
				name, value, _ := strings.Cut(kv, "=")
				e.Setenv(name, value)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": wantExit, "id": setID},
	})
}

func wantExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func setID(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: id VAR NAME")
	}
	ts.Check(ts.Exec("assay", "list", "--filter", `subject.name = "`+args[1]+`"`, "--format", "json"))
	var out attestationsJSON
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &out))
	if len(out.Attestations) != 1 {
		ts.Fatalf("%d attestations of %s", len(out.Attestations), args[1])
	}
	ts.Setenv(args[0], out.Attestations[0].AttestationID)
}
